import { readFile } from 'node:fs/promises';
import { parse, YAMLError } from 'yaml';
import { parseNumber, parseWhole } from './arguments.js';
import { UsageFailure } from './failure.js';

/** What the plan's options of the command line are before they are read. */
export interface PlanOptions {
  readonly plan?: string;
  readonly wave?: readonly string[];
  readonly observe?: string;
  readonly success?: string;
  readonly error?: string;
  readonly minSample?: string;
  readonly onError?: string;
  readonly gate?: readonly string[];
  readonly rate?: string;
  readonly spread?: string;
  readonly window?: string;
  readonly windowFor?: string;
  readonly retry?: readonly string[];
  readonly soft?: boolean;
  readonly forceAt?: string;
  readonly downloadOnly?: boolean;
  readonly dynamic?: boolean;
  readonly supersede?: boolean;
  readonly approval?: boolean;
  readonly seed?: string;
}

/** A plan as the API takes it: a file, and the options over it. The control plane checks it and fills in the rest. */
export async function planOf(options: PlanOptions): Promise<Record<string, unknown>> {
  const plan = options.plan === undefined ? {} : await readDocument('--plan', options.plan);
  const part = (name: string): Record<string, unknown> => (plan[name] ??= {}) as Record<string, unknown>;
  if (options.wave) plan.waves = options.wave.map(waveOf);
  if (options.observe !== undefined) {
    const observeMs = parseDuration('--observe', options.observe);
    plan.waves = ((plan.waves as object[] | undefined) ?? [{}]).map((wave) => ({ observeMs, ...wave }));
  }
  if (options.success !== undefined) part('success').percent = parseNumber('--success', options.success, 0, 100);
  if (options.error !== undefined) part('error').percent = parseNumber('--error', options.error, 0, 100);
  if (options.minSample !== undefined) part('error').minSample = parseWhole('--min-sample', options.minSample, 1);
  if (options.onError !== undefined) part('error').then = options.onError;
  for (const text of options.gate ?? []) Object.assign(part('gates'), gateOf(text));
  if (options.rate !== undefined) plan.rate = { kind: 'constant', perMinute: parseNumber('--rate', options.rate, 0.001, 600_000) };
  if (options.spread !== undefined) {
    const [label, atOnce = '1'] = options.spread.split(':');
    plan.spread = { label, atOnce: parseWhole('--spread', atOnce, 1) };
  }
  if (options.window !== undefined) {
    if (options.windowFor === undefined) throw new UsageFailure('--window: --window-for says how long it stays open');
    plan.window = { cron: options.window, durationMs: parseDuration('--window-for', options.windowFor) };
  }
  for (const text of options.retry ?? []) {
    const [failure = '', times = ''] = text.split('=');
    part('retries')[failure] = { times: parseWhole('--retry', times, 0) };
  }
  if (options.soft || options.forceAt !== undefined) plan.mode = 'soft';
  if (options.forceAt !== undefined) plan.forceAt = options.forceAt;
  if (options.downloadOnly) plan.downloadOnly = true;
  if (options.dynamic) part('membership').kind = 'dynamic';
  if (options.supersede) plan.overlap = 'supersede';
  if (options.approval) plan.approval = true;
  if (options.seed !== undefined) plan.seed = parseWhole('--seed', options.seed, 0);
  return plan;
}

/** A YAML or JSON file with one object in it. */
export async function readDocument(option: string, file: string): Promise<Record<string, unknown>> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new UsageFailure(`${option} ${file} cannot be read: ${(cause as Error).message}`);
  });
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    if (error instanceof YAMLError) throw new UsageFailure(`${option} ${file}: ${error.message}`);
    throw error;
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    throw new UsageFailure(`${option} ${file} is not one YAML object`);
  return document as Record<string, unknown>;
}

/** "5", "10%", "rest", or a filter. */
function waveOf(text: string): Record<string, unknown> {
  if (text === 'rest') return {};
  if (/^\d+$/.test(text)) return { count: parseWhole('--wave', text, 1) };
  const percent = /^([\d.]+)\s*%$/.exec(text)?.[1];
  return percent === undefined ? { filter: text } : { percent: parseNumber('--wave', percent, 0, 100) };
}

const GATES: Readonly<Record<string, string>> = {
  ttft: 'ttftRatio',
  'inter-token': 'interTokenRatio',
  errors: 'errorPoints',
  agreement: 'agreementPercent',
};

function gateOf(text: string): Record<string, number> {
  const [name = '', value = ''] = text.split('=');
  const key = GATES[name];
  if (!key) throw new UsageFailure(`--gate: ${JSON.stringify(text)} is none of ${Object.keys(GATES).join('=…, ')}=…`);
  return { [key]: parseNumber(`--gate ${name}`, value, 0, 100) };
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "90s", "10m", "2h", "1d" -> milliseconds. */
export function parseDuration(option: string, text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  if (value === undefined || unit === undefined)
    throw new UsageFailure(`${option}: ${JSON.stringify(text)} is no duration such as 90s, 10m, 2h or 1d`);
  return Math.round(Number(value) * UNITS[unit]!);
}
