import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { parseDailyWindow } from '@matfleet/device';
import { z } from 'zod';
import { parseBytes } from './sizes.js';

const bytes = z.union([z.number().int().positive(), z.string()]).transform((value, context) => {
  try {
    return typeof value === 'number' ? value : parseBytes(value);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

/** `127.0.0.1:7481`, `[::1]:7481`. */
function parseAddress(value: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(value) ?? [];
  const host = bracketed ?? plain;
  return host !== undefined && Number(port) <= 65_535 ? { host, port: Number(port) } : undefined;
}

const ConfigSchema = z
  .object({
    /** Of the control plane, for example `https://fleet.example:7443`. Absent: the agent serves what it has. */
    join: z.url({ protocol: /^https$/, error: 'an https:// address of the control plane' }).optional(),
    /** Needed until the device has enrolled. */
    token: z.string().min(1).optional(),
    /** File with the fleet's root metadata (`root.json`). Absent: the first root that the control plane of the join token names is taken. */
    trustRoot: z.string().min(1).optional(),
    name: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'up to 63 letters, digits, dots, dashes or underscores')
      .default(
        () =>
          hostname()
            .replace(/[^A-Za-z0-9._-]/g, '-')
            .slice(0, 63) || 'device',
      ),
    /** Grant to weights, K/V and activations, bytes. */
    modelMemory: bytes.optional(),
    /** Most bytes per second that all downloads together take. */
    bandwidth: bytes.optional(),
    /** Hours of the day without downloads, in the device's own time: `08:00-20:00`, several with commas between. */
    quietHours: z
      .union([z.array(z.string()), z.string().transform((value) => value.split(','))])
      .default([])
      .transform((texts, context) =>
        texts.map((text) => {
          const window = parseDailyWindow(text);
          if (window) return window;
          context.addIssue({ code: 'custom', message: `${JSON.stringify(text)} is not hours of a day such as 08:00-20:00` });
          return z.NEVER;
        }),
      ),
    /** Chunks that are fetched at a time. */
    downloads: z.coerce.number().int().min(1).max(32).default(4),
    data: z.string().min(1).default('.data/agent'),
    socket: z.string().min(1).optional(),
    /** Loopback port of the local service; 0 any free one. */
    port: z.coerce.number().int().min(0).max(65_535).default(7480),
    /** Where OpenAI's and Ollama's APIs are served: `host:port`, port 0 any free one; or `off`. */
    http: z
      .string()
      .default('127.0.0.1:7481')
      .transform((value, context) => {
        const address = parseAddress(value);
        if (address || value === 'off') return address;
        context.addIssue({ code: 'custom', message: `${JSON.stringify(value)} is neither host:port nor off` });
        return z.NEVER;
      }),
    /** Callers of the HTTP APIs must give it; needed where other devices can reach the address. */
    httpToken: z.string().min(16, 'at least 16 characters').optional(),
    /** Names beside localhost by which callers may address the HTTP APIs. */
    httpHost: z
      .union([z.array(z.string()), z.string().transform((value) => value.split(','))])
      .default([])
      .transform((names) => names.map((name) => name.trim()).filter(Boolean)),
    /** How tools come to the model: described in a system turn, or not, for a model that was trained on its functions. */
    toolPrompt: z.enum(['describe', 'none']).default('describe'),
    readyFile: z.string().min(1).optional(),
    /** Memory for the rows of the embedding tables that the engine used last, bytes. */
    hotRowBytes: bytes.optional(),
    /** Threads of one operator. */
    threads: z.coerce.number().int().positive().optional(),
    /** Whether other work runs on this device too: how the engine's threads wait follows from it. */
    box: z.enum(['dedicated', 'shared']).default('shared'),
    /** What computes the model, as far as it can; the CPU does the rest. */
    provider: z.enum(['cpu', 'webgpu', 'cuda']).default('cpu'),
    /** Grant of an accelerator's memory, bytes; a slice that needs more is refused. */
    acceleratorMemory: bytes.optional(),
    /** Inferences that may wait for the engine. */
    queueLimit: z.coerce.number().int().min(1).max(1_000).default(8),
    /** How far a request may go that this device cannot answer. */
    fallback: z.enum(['device', 'site', 'fleet']).default('fleet'),
    memoryLimit: z.enum(['cgroup', 'watchdog']).optional(),
    logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  })
  .strict();

export type Config = Readonly<z.infer<typeof ConfigSchema>> & { readonly socket: string };

const names = Object.keys(ConfigSchema.shape) as (keyof z.infer<typeof ConfigSchema>)[];

/** `modelMemory` → `MATFLEET_MODEL_MEMORY`. */
export const environmentName = (name: string): string => `MATFLEET_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;

/** Flags win over the environment, that over the file. Throws one error that lists every problem. */
export function parseConfig(flags: Record<string, unknown>, env: Record<string, string | undefined>, file: Record<string, unknown> = {}): Config {
  const merged: Record<string, unknown> = { ...file };
  for (const name of names) {
    const value = flags[name] ?? (env[environmentName(name)] || undefined);
    if (value !== undefined) merged[name] = value;
  }
  const result = ConfigSchema.safeParse(merged);
  if (!result.success)
    throw new Error(
      `the agent's configuration is wrong:\n${result.error.issues.map((issue) => `  ${issue.path.join('.') || '(file)'}: ${issue.message}`).join('\n')}`,
    );
  const data = resolve(result.data.data);
  return { ...result.data, data, socket: resolve(result.data.socket ?? `${data}/agent.sock`) };
}
