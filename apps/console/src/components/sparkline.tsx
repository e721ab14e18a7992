import { useComputedColorScheme } from '@mantine/core';
import { useElementSize, useMergedRef } from '@mantine/hooks';
import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import type { Sample } from '../fleet.js';
import { significant } from '../format.js';
import styles from './sparkline.module.css';

interface Props {
  readonly label: string;
  readonly short: string;
  readonly unit: string;
  /** A custom property that holds the line's colour. */
  readonly color: `--${string}`;
  readonly history: readonly Sample[];
  readonly value: Exclude<keyof Sample, 'atMs'>;
  readonly note: string | undefined;
}

const heightPx = 38;

/** The newest value as a number, with its recent course as a line. */
export function Sparkline({ label, short, unit, color, history, value, note }: Props) {
  const latest = history.at(-1)?.[value];
  return (
    <figure className={styles.figure} data-plot={value}>
      <figcaption className={styles.caption}>
        <span className={styles.label}>{short}</span>
        <span className={styles.now} data-field={value}>
          {latest === undefined ? '–' : `${significant(latest)}${unit && ` ${unit}`}`}
        </span>
      </figcaption>
      {history.length < 2 ? (
        <div className={styles.empty}>{latest === undefined ? 'no answers measured yet' : ''}</div>
      ) : (
        <Plot description={describe(label, unit, history, value)} color={color} history={history} value={value} />
      )}
      <div className={styles.note}>{note ?? ' '}</div>
    </figure>
  );
}

function describe(label: string, unit: string, history: readonly Sample[], value: Props['value']): string {
  const values = history.map((sample) => sample[value]);
  const [low, high, last] = [Math.min(...values), Math.max(...values), values.at(-1)!].map((v) => `${significant(v)} ${unit}`.trim());
  return `${label}: ${last} now, between ${low} and ${high} over the last ${values.length} samples`;
}

function Plot({ description, color, history, value }: Pick<Props, 'color' | 'history' | 'value'> & { readonly description: string }) {
  const { ref, width } = useElementSize<HTMLDivElement>();
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const scheme = useComputedColorScheme('light');
  const data = [history.map(({ atMs }) => atMs / 1000), history.map((sample) => sample[value])] as uPlot.AlignedData;
  const drawn = useRef(data);
  drawn.current = data;

  useEffect(() => {
    if (!host.current || width === 0) return;
    plot.current = new uPlot(options(width, getComputedStyle(document.documentElement).getPropertyValue(color).trim()), drawn.current, host.current);
    return () => {
      plot.current?.destroy();
      plot.current = null;
    };
  }, [width, color, scheme]);
  useEffect(() => plot.current?.setData(drawn.current), [history]);

  return <div ref={useMergedRef(host, ref)} className={styles.plot} role="img" aria-label={description} />;
}

function options(width: number, stroke: string): uPlot.Options {
  return {
    width,
    height: heightPx,
    pxAlign: false,
    legend: { show: false },
    cursor: { show: false },
    padding: [4, 2, 4, 2],
    axes: [{ show: false }, { show: false }],
    // From zero, so that a quiet line looks quiet; never an empty range.
    scales: { x: { time: false }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    series: [{}, { stroke, width: 1.6, fill: `${stroke}1f`, points: { show: false } }],
  };
}
