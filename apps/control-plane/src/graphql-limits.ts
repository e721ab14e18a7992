import {
  getNamedType,
  GraphQLError,
  isCompositeType,
  isListType,
  isNonNullType,
  isObjectType,
  Kind,
  type ASTNode,
  type FieldNode,
  type GraphQLCompositeType,
  type GraphQLField,
  type SelectionSetNode,
  type ValidationContext,
  type ValidationRule,
} from 'graphql';

/** Of one operation. The console's largest query, all devices with everything, costs about 150,000. */
export const COST_MAX = 250_000;
export const ALIASES_MAX = 30;

/** Rows of a list whose field does not let the caller say how many. */
const ROOT_ROWS = 200;
const NESTED_ROWS = 20;
/** Rows of a list whose field lets the caller say, and the caller does not, or says it by a variable. */
const ASKED_ROWS_MAX = 1_000;
const SIZES = new Set(['first', 'limit']);

/** Every field counts once for each row that it may be answered for; a list multiplies what is below it. */
export const costLimit =
  (most: number = COST_MAX): ValidationRule =>
  (context) => ({
    OperationDefinition(operation) {
      const root = context.getSchema().getRootType(operation.operation);
      if (!root) return;
      const cost = costOf(operation.selectionSet, root, context, new Map(), true);
      if (cost > most) context.reportError(refusal(`the ${operation.operation} may cost ${cost} fields, at most ${most} are answered`, operation));
    },
  });

/** Other names for the same field are the cheap way to ask for it many times. */
export const aliasLimit =
  (most: number = ALIASES_MAX): ValidationRule =>
  (context) => {
    let aliases = 0;
    return {
      Field(field) {
        if (field.alias) aliases += 1;
      },
      Document: {
        leave(document) {
          if (aliases > most) context.reportError(refusal(`the query has ${aliases} aliases, at most ${most} are taken`, document));
        },
      },
    };
  };

export const LIMITS: readonly ValidationRule[] = [aliasLimit(), costLimit()];

const refusal = (message: string, nodes: ASTNode): GraphQLError => new GraphQLError(message, { nodes, extensions: { code: 'resource-exhausted' } });

function costOf(
  set: SelectionSetNode,
  type: GraphQLCompositeType,
  context: ValidationContext,
  /** Cost of each fragment, worked out once however often it is spread; one that holds itself is another rule's to refuse. */
  fragments: Map<string, number>,
  isRoot = false,
): number {
  let cost = 0;
  for (const selection of set.selections) {
    switch (selection.kind) {
      case Kind.FIELD: {
        // Introspection is bounded by the schema and by the limit on depth.
        const field = selection.name.value.startsWith('__') || !isObjectType(type) ? undefined : type.getFields()[selection.name.value];
        const below = field && getNamedType(field.type);
        const children = below && isCompositeType(below) && selection.selectionSet ? costOf(selection.selectionSet, below, context, fragments) : 0;
        cost += (field ? rowsOf(selection, field, isRoot) : 1) * (1 + children);
        break;
      }
      case Kind.INLINE_FRAGMENT:
        cost += costOf(selection.selectionSet, type, context, fragments, isRoot);
        break;
      case Kind.FRAGMENT_SPREAD: {
        const name = selection.name.value;
        const fragment = context.getFragment(name);
        if (fragment && !fragments.has(name)) {
          fragments.set(name, 0);
          fragments.set(name, costOf(fragment.selectionSet, type, context, fragments, isRoot));
        }
        cost += fragments.get(name) ?? 0;
      }
    }
  }
  return cost;
}

function rowsOf(node: FieldNode, field: GraphQLField<unknown, unknown>, isRoot: boolean): number {
  const argument = field.args.find(({ name }) => SIZES.has(name));
  const given = argument && node.arguments?.find(({ name }) => name.value === argument.name)?.value;
  if (given?.kind === Kind.INT) return Math.max(1, Math.min(Number(given.value), ASKED_ROWS_MAX));
  // A page is an object with a list in it: the one who asks says how long that is.
  if (argument) return given || typeof argument.defaultValue !== 'number' ? ASKED_ROWS_MAX : argument.defaultValue;
  const type = isNonNullType(field.type) ? field.type.ofType : field.type;
  return isListType(type) ? (isRoot ? ROOT_ROWS : NESTED_ROWS) : 1;
}
