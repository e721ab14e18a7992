/** Numbers and times in the short form that a dense page needs. */

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1536` → `1.5 KiB`. */
export function bytes(value: number): string {
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1024 && unit < byteUnits.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${unit === 0 ? scaled : significant(scaled)} ${byteUnits[unit]}`;
}

/** Milliseconds, as `0.42 ms`, `31 ms` or `2.4 s`. */
export function duration(ms: number): string {
  return ms < 1000 ? `${significant(ms)} ms` : `${significant(ms / 1000)} s`;
}

/** `412.3` → `412`, `9.37` → `9.4`, `0.0712` → `0.07`: no more digits than the eye uses. */
export function significant(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? (Number.isInteger(value) ? 0 : 1) : size >= 1 ? 1 : 2);
}

/** A share of one as a percentage: `0.9431` → `94.3 %`. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** The first 8 hex digits of a model version id: enough to tell versions of one fleet apart. */
export function shortVersion(id: string): string {
  return id.slice(0, 8);
}

/** How long ago, in one unit: `now`, `12 s ago`, `4 min ago`, `3 h ago`, `2 d ago`. */
export function ago(iso: string, nowMs: number): string {
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(iso)) / 1000));
  if (seconds < 2) return 'now';
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

export function clock(iso: string): string {
  return new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
}
