import type { Candidate, ModelSlice } from '../api-types.js';
import { bytes, percent, significant } from '../format.js';
import styles from './candidate-table.module.css';

/** The candidates as the control plane ranked them; the chosen one is marked by word and colour. */
export function CandidateTable({ candidates, slices }: { readonly candidates: readonly Candidate[]; readonly slices: readonly ModelSlice[] }) {
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
          {candidates.map((candidate) => (
            <tr key={candidate.sliceId} data-chosen={candidate.chosen || undefined} data-fits={candidate.fits || undefined}>
              <th scope="row">
                {slices.find(({ id }) => id === candidate.sliceId)?.name ?? candidate.sliceId}
                {candidate.chosen && <span className={styles.chosen}>chosen</span>}
              </th>
              <td className={styles.number}>{candidate.quality === null ? '–' : percent(candidate.quality)}</td>
              <td className={styles.number}>{bytes(candidate.totalBytes)}</td>
              <td className={styles.number}>
                {candidate.predictedInterTokenMs === null ? '–' : `${significant(candidate.predictedInterTokenMs)} ms/token`}
              </td>
              <td>{candidate.why}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
