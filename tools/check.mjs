// `npm run check`: format, lint, types, and generated code up to date. Prints each step's time and fails at the end with all that failed.
import { spawnSync } from 'node:child_process';

const steps = [
  ['format', 'npx', ['prettier', '--check', '--log-level', 'warn', '.']],
  // Without a cached project graph the boundaries rule skips itself with a warning.
  ['project graph', 'npx', ['nx', 'show', 'projects']],
  ['lint', 'npx', ['eslint', '--max-warnings', '0', 'libs', 'apps', 'test', 'bench']],
  ['types', 'npx', ['tsc', '--noEmit']],
  ['types: console', 'npx', ['tsc', '--noEmit', '-p', 'apps/console']],
  ['protocol lint', 'npm', ['run', '--silent', 'lint', '-w', 'libs/protocol']],
  ['protocol breaking', 'npm', ['run', '--silent', 'breaking', '-w', 'libs/protocol']],
  ['generate', 'npm', ['run', '--silent', 'generate']],
  ['generated code is committed', 'git', ['diff', '--exit-code', '--stat', '--', 'libs/protocol/src/gen', 'apps/control-plane/src/generated']],
];

const only = process.argv[2];
const failed = [];
for (const [name, command, args] of steps) {
  if (only && only !== name) continue;
  const start = Date.now();
  const { status } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, NX_DAEMON: 'false' } });
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  if (status !== 0) failed.push(name);
}
if (failed.length > 0) console.error(`check failed: ${failed.join(', ')}`);
process.exit(failed.length > 0 ? 1 : 0);
