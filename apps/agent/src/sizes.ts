const UNITS: Record<string, number> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** `2MiB`, `1.5GB`, `4096` → bytes. Throws with the accepted units. */
export function parseBytes(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const unit = Object.entries(UNITS).find(([name]) => name.toLowerCase() === match?.[2]?.toLowerCase())?.[1];
  if (!match || unit === undefined)
    throw new Error(`"${text}" is not a size: write a number and one of ${Object.keys(UNITS).filter(Boolean).join(', ')}`);
  const bytes = Math.round(Number(match[1]) * unit);
  if (bytes < 1 || !Number.isSafeInteger(bytes)) throw new Error(`"${text}" is not a usable size`);
  return bytes;
}
