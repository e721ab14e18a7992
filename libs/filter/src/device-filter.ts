import { type ASTNode, Environment, type ParseResult } from '@marcbachmann/cel-js';
import { type Condition, toCondition, unitBytes, units, Unsupported } from './condition.js';
import { deviceFields, type FilterableDevice } from './device-fields.js';
import { FilterError } from './filter-error.js';

/** The longest filter that is read. */
export const FILTER_LENGTH_MAX = 2_000;

// The language is CEL, as in Kubernetes' policies: typed, without loops over data, and its unknown values behave as SQL's NULL.
const environment = new Environment({ limits: { maxAstNodes: 500, maxDepth: 50, maxListElements: 200, maxMapEntries: 0, maxCallArguments: 2 } });
for (const [name, { type, description }] of Object.entries(deviceFields)) environment.registerVariable(name, type, { description });
for (const unit of units) environment.registerFunction(`${unit}(int): int`, (count: bigint) => unitBytes(unit, count));

/** Which devices are meant. One language for REST, GraphQL, the command line, policies and rollouts. */
export class DeviceFilter {
  private constructor(
    readonly text: string,
    readonly condition: Condition,
    private readonly program: ParseResult,
  ) {}

  /** Throws `FilterError`, with the column, for anything that is not a filter. */
  static parse(text: string): DeviceFilter {
    if (text.length > FILTER_LENGTH_MAX)
      throw new FilterError(`${text.length} characters are more than the ${FILTER_LENGTH_MAX} that a filter may have`, text, FILTER_LENGTH_MAX);
    try {
      const program = environment.parse(text);
      const checked = program.check();
      if (!checked.valid) throw checked.error;
      if (checked.type !== 'bool') throw new Unsupported(`a filter is true or false for a device, this is ${checked.type}`, program.ast);
      return new DeviceFilter(text, toCondition(program.ast), program);
    } catch (error) {
      throw asFilterError(error, text);
    }
  }

  matches(device: FilterableDevice): boolean {
    try {
      return this.program(context(device)) === true;
    } catch {
      // A value that the device does not have decides: unknown, so no match.
      return false;
    }
  }
}

/** Numbers as CEL's int; what the device did not tell stays out. */
const context = (device: FilterableDevice): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(device).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, typeof value === 'number' ? BigInt(Math.trunc(value)) : value]],
    ),
  );

function asFilterError(error: unknown, text: string): FilterError {
  if (error instanceof FilterError) return error;
  const node: ASTNode | undefined = error instanceof Unsupported ? error.node : undefined;
  const { summary, range, message } = error as { summary?: string; range?: { start: number }; message: string };
  return new FilterError(summary ?? message, text, node?.start ?? range?.start ?? 0);
}
