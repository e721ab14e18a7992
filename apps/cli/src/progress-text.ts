import { formatBytes } from './output.js';

/** How far a step is and when it will end, at its average speed so far. `seconds` since the step began; `bytes` says what is counted. */
export function progressText(done: number, total: number, seconds: number, bytes: boolean): string {
  const percent = `${total > 0 ? Math.floor((100 * done) / total) : 100} %`;
  const count = bytes ? `${formatBytes(done)} of ${formatBytes(total)}` : `${done} of ${total}`;
  if (done === 0 || seconds < 1) return `${percent}, ${count}`;
  const speed = bytes ? `, ${Math.round(done / seconds / 1e6)} MB/s` : '';
  return `${percent}, ${count}${speed}, ${durationText((total - done) * (seconds / done))} left`;
}

/** 4230 -> "1 h 10 min" */
export function durationText(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
