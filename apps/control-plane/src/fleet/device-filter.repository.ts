import { Injectable } from '@nestjs/common';
import type { Condition, ListField, NumberField, Order, TextField, TextOperand } from '@matfleet/filter';
import { PrismaService } from '../database/prisma.service.js';
import { Prisma } from '../generated/prisma/client.js';

/** Who is here: presence is memory, not a column. Devices in neither list are offline. */
export interface Present {
  readonly online: readonly string[];
  readonly suspect: readonly string[];
}

/** Devices by name, those after the name `after`. */
export interface NamePage {
  readonly after: string;
  readonly limit: number;
}

type Sql = Prisma.Sql;
const { sql } = Prisma;

/** What a device did not tell is NULL, so that a condition on it is unknown here as in memory. */
const TEXT_COLUMNS: Record<Exclude<TextField, 'presence'>, Sql> = {
  id: sql`d.id`,
  name: sql`d.name`,
  phase: sql`d.phase`,
  model: sql`nullif(d.observed->>'modelVersionId', '')`,
  slice: sql`nullif(d.observed->>'sliceId', '')`,
  architecture: sql`nullif(d.capabilities->>'architecture', '')`,
  platform: sql`nullif(d.capabilities->>'platform', '')`,
  agentVersion: sql`nullif(d.agent_version, '')`,
};
const number = (key: string): Sql => sql`nullif(trunc((d.capabilities->>${key})::numeric), 0)`;
const NUMBER_COLUMNS: Record<NumberField, Sql> = {
  cores: number('cores'),
  memoryBytes: number('totalMemoryBytes'),
  grantBytes: number('modelMemoryBytes'),
  freeDiskBytes: number('freeDiskBytes'),
  bandwidthBytesPerSecond: number('memoryBandwidthBytesPerSecond'),
};
const LIST_COLUMNS: Record<ListField, Sql> = {
  cpuFeatures: sql`d.capabilities->'cpuFeatures'`,
  executionProviders: sql`d.capabilities->'executionProviders'`,
};
const ORDERS: Record<Order, Sql> = { '==': sql`=`, '!=': sql`<>`, '<': sql`<`, '<=': sql`<=`, '>': sql`>`, '>=': sql`>=` };

/** Finds devices by filter in PostgreSQL. */
@Injectable()
export class DeviceFilterRepository {
  constructor(private readonly prisma: PrismaService) {}

  /** Ids of the devices for which the condition holds, by name: all, or one page. */
  async matching(condition: Condition, present: Present, page?: NamePage): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<{ id: string }[]>`
      SELECT d.id FROM devices d WHERE ${where(condition, present)} AND d.name > ${page?.after ?? ''} ORDER BY d.name LIMIT ${page?.limit ?? null}::bigint`;
    return rows.map((row) => row.id);
  }
}

/** The condition over `devices d`. Every value travels as a parameter. */
export function where(condition: Condition, present: Present): Sql {
  switch (condition.kind) {
    case 'and':
      return sql`(${where(condition.left, present)} AND ${where(condition.right, present)})`;
    case 'or':
      return sql`(${where(condition.left, present)} OR ${where(condition.right, present)})`;
    case 'not':
      return sql`(NOT ${where(condition.of, present)})`;
    case 'always':
      return sql`TRUE`;
    case 'never':
      return sql`FALSE`;
    case 'number':
      return sql`(${NUMBER_COLUMNS[condition.field]} ${ORDERS[condition.order]} ${condition.value}::bigint)`;
    case 'numbers':
      return sql`(${NUMBER_COLUMNS[condition.field]} = ANY(${condition.values.map(String)}::text[]::bigint[]))`;
    case 'text': {
      const column = textColumn(condition.operand, present);
      switch (condition.test) {
        case '==':
        case '!=':
          return sql`(${column} ${ORDERS[condition.test]} ${condition.value})`;
        case 'startsWith':
          return sql`starts_with(${column}, ${condition.value})`;
        case 'endsWith':
          return sql`(right(${column}, char_length(${condition.value})) = ${condition.value})`;
        case 'contains':
          return sql`(strpos(${column}, ${condition.value}) > 0)`;
      }
    }
    case 'texts':
      return sql`(${textColumn(condition.operand, present)} = ANY(${[...condition.values]}::text[]))`;
    case 'has-label':
      return sql`jsonb_exists(d.labels, ${condition.key})`;
    case 'has-item':
      return sql`jsonb_exists(${LIST_COLUMNS[condition.field]}, ${condition.value})`;
  }
}

function textColumn(operand: TextOperand, present: Present): Sql {
  if ('label' in operand) return sql`(d.labels->>${operand.label})`;
  if (operand.field !== 'presence') return TEXT_COLUMNS[operand.field];
  return sql`(CASE WHEN d.id = ANY(${[...present.online]}::text[]) THEN 'online' WHEN d.id = ANY(${[...present.suspect]}::text[]) THEN 'suspect' ELSE 'offline' END)`;
}
