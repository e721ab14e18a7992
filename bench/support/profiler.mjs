// Loaded into the control plane by `npm run bench -- fleet --profile DIR`: SIGUSR2 begins a CPU profile, the next one writes it.
import { mkdirSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';

const directory = process.env.MATFLEET_BENCH_PROFILES;
const session = new Session();
let running = false;
let written = 0;

mkdirSync(directory, { recursive: true });
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.setSamplingInterval', { interval: 500 });
process.on('SIGUSR2', () => {
  running = !running;
  if (running) void session.post('Profiler.start');
  else
    void session.post('Profiler.stop').then(({ profile }) => {
      written += 1;
      writeFileSync(join(directory, `control-plane-${process.pid}-${written}.cpuprofile`), JSON.stringify(profile));
    });
});
