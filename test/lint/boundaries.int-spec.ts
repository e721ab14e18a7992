import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { repositoryRoot } from '@matfleet/harness';

/** A file that breaks one rule, and the words by which the lint must refuse it. */
const wrong = [
  { place: 'libs/model/src', code: "import { openEngine } from '@matfleet/inference';\nexport { openEngine };", rule: 'no-restricted-imports' },
  { place: 'libs/model/src', code: 'export const now = Date.now();', rule: 'no-restricted-globals' },
  { place: 'libs/protocol/src', code: "import { Manifest } from '@matfleet/model';\nexport { Manifest };", rule: '@nx/enforce-module-boundaries' },
  { place: 'libs/inference/src', code: "import { Role } from '@matfleet/protocol';\nexport { Role };", rule: '@nx/enforce-module-boundaries' },
  {
    place: 'libs/inference/src',
    code: "import { InferenceSession } from 'onnxruntime-node';\nexport { InferenceSession };",
    rule: 'no-restricted-imports',
  },
  {
    place: 'libs/device/src',
    code: "import { openEngine } from '@matfleet/inference';\nexport { openEngine };",
    rule: '@nx/enforce-module-boundaries',
  },
  { place: 'libs/device/src', code: "import { Module } from '@nestjs/common';\nexport { Module };", rule: '@nx/enforce-module-boundaries' },
  { place: 'apps/agent/src', code: "import { openEngine } from '@matfleet/inference';\nexport { openEngine };", rule: 'no-restricted-imports' },
  {
    place: 'apps/control-plane/src',
    code: "import { openEngine } from '@matfleet/inference';\nexport { openEngine };",
    rule: '@nx/enforce-module-boundaries',
  },
  { place: 'apps/control-plane/src/fleet', code: "import { Queue } from 'bullmq';\nexport { Queue };", rule: 'no-restricted-imports' },
  { place: 'apps/control-plane/src/fleet', code: "import { Role } from '@matfleet/protocol';\nexport { Role };", rule: 'no-restricted-imports' },
  {
    place: 'apps/control-plane/src/domain',
    code: "import { readFileSync } from 'node:fs';\nexport { readFileSync };",
    rule: 'no-restricted-imports',
  },
  { place: 'apps/control-plane/src/domain', code: 'export const dice = Math.random();', rule: 'no-restricted-properties' },
  { place: 'apps/cli/src', code: "import { Role } from '@matfleet/protocol';\nexport { Role };", rule: '@nx/enforce-module-boundaries' },
];

describe('module boundaries', () => {
  const probes = wrong.map((probe, index) => ({ ...probe, file: join(repositoryRoot, probe.place, `boundary-probe-${index}.ts`) }));
  let refused: Map<string, string[]>;

  beforeAll(() => {
    for (const { file, code } of probes) writeFileSync(file, `${code}\n`);
    const nx = spawnSync('npx', ['nx', 'show', 'projects'], {
      cwd: repositoryRoot,
      encoding: 'utf8',
      env: { ...process.env, NX_DAEMON: 'false' },
      timeout: 60_000,
    });
    expect(nx.status).toBe(0);
    const lint = spawnSync('npx', ['eslint', '-f', 'json', ...probes.map(({ file }) => file)], {
      cwd: repositoryRoot,
      encoding: 'utf8',
      env: { ...process.env, NX_DAEMON: 'false' },
      timeout: 110_000,
      maxBuffer: 1 << 26,
    });
    const results = JSON.parse(lint.stdout.slice(lint.stdout.indexOf('[{'))) as { filePath: string; messages: { ruleId: string | null }[] }[];
    refused = new Map(results.map(({ filePath, messages }) => [filePath, messages.map(({ ruleId }) => ruleId ?? 'parse error')]));
  }, 180_000);

  afterAll(() => {
    for (const { file } of probes) rmSync(file, { force: true });
  });

  it.each(probes)('refuses in $place: $code', ({ file, rule }) => {
    expect(refused.get(file)).toContain(rule);
  });
});
