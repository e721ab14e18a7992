import type { ASTNode } from '@marcbachmann/cel-js';
import { deviceFields, type FieldDefinition, type ListField, type NumberField, type TextField } from './device-fields.js';

/** What can be compared: a text field, a label, or a number field. */
export type TextOperand = { readonly field: TextField } | { readonly label: string };
export type Order = '==' | '!=' | '<' | '<=' | '>' | '>=';

/** A checked filter as a tree. A value that a device does not have makes a condition unknown, and unknown is no match, as in SQL. */
export type Condition =
  | { readonly kind: 'and' | 'or'; readonly left: Condition; readonly right: Condition }
  | { readonly kind: 'not'; readonly of: Condition }
  | { readonly kind: 'always' | 'never' }
  | { readonly kind: 'number'; readonly field: NumberField; readonly order: Order; readonly value: bigint }
  | { readonly kind: 'numbers'; readonly field: NumberField; readonly values: readonly bigint[] }
  | { readonly kind: 'text'; readonly operand: TextOperand; readonly test: TextTest; readonly value: string }
  | { readonly kind: 'texts'; readonly operand: TextOperand; readonly values: readonly string[] }
  | { readonly kind: 'has-label'; readonly key: string }
  | { readonly kind: 'has-item'; readonly field: ListField; readonly value: string };
export type TextTest = '==' | '!=' | 'startsWith' | 'endsWith' | 'contains';

/** Raised while a tree is made; `node` is where. */
export class Unsupported extends Error {
  constructor(
    message: string,
    readonly node: ASTNode,
  ) {
    super(message);
  }
}

const UNITS = { MB: 10n ** 6n, GB: 10n ** 9n, MiB: 2n ** 20n, GiB: 2n ** 30n };
export type Unit = keyof typeof UNITS;
export const units = Object.keys(UNITS) as Unit[];
export const unitBytes = (unit: Unit, count: bigint): bigint => count * UNITS[unit];

const INT64_MAX = 2n ** 63n - 1n;
const ORDERS: readonly string[] = ['==', '!=', '<', '<=', '>', '>='];
const MIRRORED: Record<Order, Order> = { '==': '==', '!=': '!=', '<': '>', '<=': '>=', '>': '<', '>=': '<=' };
const TEXT_METHODS: readonly string[] = ['startsWith', 'endsWith', 'contains'];

/** The part of the language that means the same in memory and in PostgreSQL. Throws `Unsupported` for the rest. */
export function toCondition(node: ASTNode): Condition {
  switch (node.op) {
    case '&&':
    case '||':
      return { kind: node.op === '&&' ? 'and' : 'or', left: toCondition(node.args[0]), right: toCondition(node.args[1]) };
    case '!_':
      return { kind: 'not', of: toCondition(node.args) };
    case 'value':
      if (typeof node.args === 'boolean') return { kind: node.args ? 'always' : 'never' };
      break;
    case 'in':
      return membership(node.args[0], node.args[1]);
    case 'rcall': {
      const [method, receiver, [argument]] = node.args;
      if (TEXT_METHODS.includes(method) && argument) {
        const operand = textOperand(receiver);
        if (operand) return { kind: 'text', operand, test: method as TextTest, value: textValue(argument) };
      }
      throw new Unsupported(`${method}() is not part of filters: use ${TEXT_METHODS.join(', ')} on a text field or a label`, node);
    }
    default:
      if (ORDERS.includes(node.op)) {
        const [left, right] = node.args as [ASTNode, ASTNode];
        return comparison(left, node.op as Order, right) ?? comparison(right, MIRRORED[node.op as Order], left) ?? refuse(node);
      }
  }
  return refuse(node);
}

function refuse(node: ASTNode): never {
  throw new Unsupported('a condition compares one field or label with a value, as in `cores >= 4` or `labels.site == "berlin"`', node);
}

function comparison(left: ASTNode, order: Order, right: ASTNode): Condition | undefined {
  const operand = textOperand(left);
  if (operand) {
    if (order !== '==' && order !== '!=') throw new Unsupported(`text has no order: use == or != instead of ${order}`, left);
    const value = textValue(right);
    checkKnown(operand, value, right);
    return { kind: 'text', operand, test: order, value };
  }
  const field = fieldOf(left, 'int');
  return field && { kind: 'number', field: field as NumberField, order, value: numberValue(right) };
}

function membership(item: ASTNode, collection: ASTNode): Condition {
  if (collection.op === 'list') {
    if (collection.args.length === 0) throw new Unsupported('the list is empty', collection);
    const operand = textOperand(item);
    if (operand) {
      const values = collection.args.map((node) => {
        const value = textValue(node);
        checkKnown(operand, value, node);
        return value;
      });
      return { kind: 'texts', operand, values };
    }
    const field = fieldOf(item, 'int');
    if (field) return { kind: 'numbers', field: field as NumberField, values: collection.args.map(numberValue) };
  }
  if (fieldOf(collection, 'map<string, string>')) return { kind: 'has-label', key: textValue(item) };
  const list = fieldOf(collection, 'list<string>');
  if (list) return { kind: 'has-item', field: list as ListField, value: textValue(item) };
  throw new Unsupported('`in` asks for a field in a list of values, a text in a list field, or a key in labels', collection);
}

function fieldOf(node: ASTNode, type: FieldDefinition['type']): keyof typeof deviceFields | undefined {
  if (node.op !== 'id' || !Object.hasOwn(deviceFields, node.args)) return undefined;
  const name = node.args as keyof typeof deviceFields;
  return deviceFields[name].type === type ? name : undefined;
}

function textOperand(node: ASTNode): TextOperand | undefined {
  const field = fieldOf(node, 'string');
  if (field) return { field: field as TextField };
  if (node.op === '.' && fieldOf(node.args[0], 'map<string, string>')) return { label: node.args[1] };
  if (node.op === '[]' && fieldOf(node.args[0], 'map<string, string>')) return { label: textValue(node.args[1]) };
  return undefined;
}

function textValue(node: ASTNode): string {
  if (node.op !== 'value' || typeof node.args !== 'string') throw new Unsupported('a text in quotes must stand here', node);
  // PostgreSQL's text holds neither.
  if (node.args.includes('\0') || !node.args.isWellFormed()) throw new Unsupported('this text has a character that no field can hold', node);
  return node.args;
}

function numberValue(node: ASTNode): bigint {
  const value = integer(node);
  if (value === undefined) throw new Unsupported(`a whole number must stand here, or one of ${units.map((unit) => `${unit}(n)`).join(', ')}`, node);
  if (value > INT64_MAX || value < -INT64_MAX) throw new Unsupported(`${value} is beyond 64 bits`, node);
  return value;
}

function integer(node: ASTNode): bigint | undefined {
  if (node.op === 'value' && typeof node.args === 'bigint') return node.args;
  if (node.op === '-_') {
    const value = integer(node.args);
    return value === undefined ? undefined : -value;
  }
  if (node.op === 'call' && Object.hasOwn(UNITS, node.args[0]) && node.args[1].length === 1) {
    const count = integer(node.args[1][0]!);
    return count === undefined ? undefined : unitBytes(node.args[0] as Unit, count);
  }
  return undefined;
}

function checkKnown(operand: TextOperand, value: string, node: ASTNode): void {
  if (!('field' in operand)) return;
  const { values } = deviceFields[operand.field] as FieldDefinition;
  if (values && !values.includes(value)) throw new Unsupported(`${operand.field} is ${values.join(', ')}; "${value}" is none of them`, node);
}
