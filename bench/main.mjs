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
const { run, usage } = await import(`./${name}.mjs`);
if (args.includes('--help') || args.includes('-h')) {
  console.log(`npm run bench -- ${name} ${usage}`);
} else {
  try {
    process.exitCode = await run(args);
  } catch (error) {
    if (!String(error.code).startsWith('ERR_PARSE_ARGS')) throw error;
    console.error(`${error.message}\n\nnpm run bench -- ${name} ${usage}`);
    process.exitCode = 2;
  }
}
