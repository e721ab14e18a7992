// A neighbour that wants its core the whole time. Says "ready"; on SIGTERM says what share of the time it ran. Ends by itself after five minutes
// and with its parent.
const LIFETIME_MS = 300_000;
const born = performance.now();
const before = process.cpuUsage();

process.on('SIGTERM', () => {
  const { user, system } = process.cpuUsage(before);
  process.stdout.write(JSON.stringify({ share: (user + system) / 1000 / (performance.now() - born) }), () => process.exit(0));
});
process.stdin.on('end', () => process.exit(0)).resume();
process.stdout.write('ready\n');
spin();

function spin() {
  const until = performance.now() + 20;
  while (performance.now() < until);
  if (performance.now() - born > LIFETIME_MS) process.exit(0);
  setImmediate(spin);
}
