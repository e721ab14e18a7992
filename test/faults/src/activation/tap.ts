/** One change of the data directory; paths are relative to it. `data` is base64, at `at` or else appended to what the file holds. */
export type DiskOperation =
  | { readonly op: 'open'; readonly path: string; readonly truncate: boolean }
  | { readonly op: 'write'; readonly path: string; readonly data: string; readonly at?: number }
  | { readonly op: 'fsync' | 'mkdir' | 'remove'; readonly path: string }
  | { readonly op: 'rename'; readonly path: string; readonly to: string };

/** What `disk-tap.ts` does in an agent. */
export interface TapSettings {
  /** The agent's data directory. */
  readonly dir: string;
  /** Operations count from the one that stores this desired generation. */
  readonly armAt: number;
  /** The operation before which the agent dies; 0 for none. */
  readonly killAt: number;
  /** Gets one line that names that point. */
  readonly pointFile: string;
  /** Gets every operation from the agent's start on, as JSON lines. */
  readonly recordFile?: string;
}

const entry = new URL('./disk-tap.js', import.meta.url).href;

/** The environment in which an agent is tapped. */
export const tapEnvironment = (settings: TapSettings): NodeJS.ProcessEnv => ({
  NODE_OPTIONS: `--import=${entry}`,
  FAULT_TAP: JSON.stringify(settings),
});
