// A peer in the same minutes: llama-bench on a model of the same shape, installed by whoever runs this.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { median } from './statistics.mjs';

const exec = promisify(execFile);
const TIMEOUT_MS = 3_600_000;

/** Prompt processing alone, and decoding after a context of that many tokens. `command`: a llama-bench command with -m and nothing else. */
export async function runLlamaBench(command, { threads, prompts, generate }) {
  const [program, ...rest] = command.split(/\s+/);
  const lists = ['-t', threads, '-r', 1, '-p', prompts.join(','), '-n', 0, '-o', 'json'].map(String);
  const deep = ['-t', threads, '-r', 1, '-p', 0, '-n', generate, '-d', prompts.join(','), '-o', 'json'].map(String);
  const rows = [];
  for (const options of [lists, deep]) {
    const { stdout } = await exec(program, [...rest, ...options], { maxBuffer: 2 ** 26, timeout: TIMEOUT_MS });
    rows.push(...JSON.parse(stdout));
  }
  return rows.map((row) => ({ prompt: row.n_prompt, generated: row.n_gen, depth: row.n_depth, tokensPerSecond: row.avg_ts }));
}

/** Our medians beside the peer's; ratios above 1: ours is faster. */
export function versus(runs, { promptTokens, prefillTokensPerSecond, decodeTokensPerSecond }) {
  const of = (matches) =>
    median(
      runs
        .flat()
        .filter(matches)
        .map(({ tokensPerSecond }) => tokensPerSecond),
    );
  const peerPrefill = of((row) => row.prompt === promptTokens && row.generated === 0);
  const peerDecode = of((row) => row.prompt === 0 && row.generated > 0 && row.depth === promptTokens);
  return {
    peerPrefillTokensPerSecond: peerPrefill,
    peerDecodeTokensPerSecond: peerDecode,
    prefillRatio: prefillTokensPerSecond / peerPrefill,
    decodeRatio: decodeTokensPerSecond / peerDecode,
  };
}
