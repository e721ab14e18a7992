import type { Explanation } from '../api-types.js';
import { bytes, percent, significant } from '../format.js';
import styles from './candidate-table.module.css';

/** The candidates, best quality first; the chosen one is marked by word and colour, and numbers that rule one out are marked too. */
export function CandidateTable({ explanation: { candidates } }: { readonly explanation: Explanation }) {
  const bestFirst = [...candidates].sort((a, b) => (b.quality ?? 0) - (a.quality ?? 0) || b.totalBytes - a.totalBytes);
  return (
    <div className={styles.scroll} tabIndex={0} role="region" aria-label="Candidate slices">
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">Slice</th>
            <th scope="col" className={styles.number}>
              Quality
            </th>
            <th scope="col" className={styles.number}>
              Memory
            </th>
            <th scope="col" className={styles.number}>
              Predicted
            </th>
            <th scope="col">Why, or why not</th>
          </tr>
        </thead>
        <tbody>
          {bestFirst.map((candidate) => (
            <tr
              key={candidate.sliceId}
              data-chosen={candidate.chosen || undefined}
              data-usable={(candidate.fits && candidate.meetsLatency) || undefined}
            >
              <th scope="row">
                {candidate.name}
                {candidate.chosen && <span className={styles.chosen}>chosen</span>}
              </th>
              <td className={styles.number}>
                {candidate.quality === null ? 'not measured' : percent(candidate.quality)}
                {candidate.qualityStderr > 0 && <span className={styles.error}>± {(candidate.qualityStderr * 100).toFixed(1)}</span>}
              </td>
              <td className={styles.number} data-ruled-out={!candidate.fits || undefined}>
                {bytes(candidate.totalBytes)}
              </td>
              <td className={styles.number} data-ruled-out={!candidate.meetsLatency || undefined}>
                {significant(candidate.predictedInterTokenMs)} ms/token
              </td>
              <td>{candidate.why}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
