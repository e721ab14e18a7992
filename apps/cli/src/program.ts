import { Command } from 'commander';
import { registerAccessCommands } from './access.js';
import { registerAuditCommands } from './audit.js';
import type { Context } from './command.js';
import { registerFleetCommands } from './fleet.js';
import { registerIdentityCommands } from './identity.js';
import { registerCatalogue } from './model-catalogue.js';
import { registerGenerate } from './model-generate.js';
import { registerImport } from './model-import.js';
import { registerInspect } from './model-inspect.js';
import { registerLogits } from './model-logits.js';
import { registerPublish } from './model-publish.js';
import { registerRolloutCommands } from './rollout.js';
import { registerSynth } from './model-synth.js';
import { registerTrustCommands } from './trust.js';

/** The whole command line. Throws CommanderError instead of ending the process. */
export function createProgram(context: Context): Command {
  const program = new Command('matfleet')
    .description('Prepares Gemma 3n models, runs them here, and talks to a Matfleet control plane.')
    .option('--json', 'print exactly one JSON document on stdout, everything else on stderr')
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('(see --help)');
  const model = program.command('model').description('model packages: import, inspect, run, publish; and the catalogue of a control plane');
  for (const register of [registerImport, registerInspect, registerLogits, registerGenerate, registerPublish, registerCatalogue, registerSynth])
    register(model, context);
  registerFleetCommands(program, context);
  registerRolloutCommands(program, context);
  registerIdentityCommands(program, context);
  registerAccessCommands(program, context);
  registerAuditCommands(program, context);
  registerTrustCommands(program, context);
  for (const command of allOf(program))
    command
      .exitOverride()
      .configureHelp({ showGlobalOptions: true })
      .configureOutput({
        writeOut: (text) => context.output.result({ help: text }, ({ help }) => help.trimEnd()),
        writeErr: (text) => process.stderr.write(text),
      });
  return program;
}

const allOf = (command: Command): Command[] => [command, ...command.commands.flatMap(allOf)];
