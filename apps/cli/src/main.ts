import { CommanderError } from 'commander';
import { describe, Ended, EXIT } from './failure.js';
import { createOutput } from './output.js';
import { createProgram } from './program.js';

// A reader that stops early, such as `| head`, is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

process.exitCode = await run(process.argv.slice(2));

async function run(args: string[]): Promise<number> {
  // Read ahead of commander, so that a usage error is reported in the asked form, too.
  const output = createOutput(args.includes('--json'), process.stdout, process.stderr);
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort(new Error('interrupted'));
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const report = (code: string, message: string, told: boolean) => {
    if (!told) output.note(`matfleet: ${message}`);
    if (output.json) output.result({ error: { code, message } }, () => '');
  };
  try {
    await createProgram({ output, signal: interrupt.signal }).parseAsync(args, { from: 'user' });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof Ended) return error.exitCode;
    if (error instanceof CommanderError) {
      // Commander has already written its text: help on request to stdout, everything else to stderr.
      if (error.exitCode === 0) return EXIT.ok;
      report('usage', error.code === 'commander.help' ? 'a command is missing; see the help' : error.message.replace(/^error: /, ''), true);
      return EXIT.usage;
    }
    const outcome = describe(error, interrupt.signal.aborted);
    report(outcome.code, outcome.message, false);
    return outcome.exitCode;
  } finally {
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
  }
}
