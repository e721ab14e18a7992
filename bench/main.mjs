// npm run bench -- <name> [options]: runs bench/<name>.mjs. The method of each is in bench/README.md.
import { readdirSync } from 'node:fs';

const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.mjs') && file !== 'main.mjs')
  .map((file) => file.slice(0, -'.mjs'.length))
  .sort();
const [name, ...args] = process.argv.slice(2);
if (!names.includes(name)) {
  console.error(
    `${name ? `there is no benchmark "${name}"` : 'which benchmark?'} There is: ${names.join(', ')}. For example: npm run bench -- ${names[0]}`,
  );
  process.exit(2);
}
const { run } = await import(`./${name}.mjs`);
process.exitCode = await run(args);
