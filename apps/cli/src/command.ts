import type { Command } from 'commander';
import type { Output } from './output.js';

/** What every command is handed beside its own options. */
export interface Context {
  readonly output: Output;
  /** Aborts at Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
}

/** Adds its commands to the program. */
export type Register = (program: Command, context: Context) => void;
