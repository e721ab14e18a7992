import { Args, Field, Float, Int, ObjectType, Query, Resolver } from '@nestjs/graphql';
import type { AuditRecord } from '@matfleet/history';
import { AUDIT_PAGE_MAX } from './audit.controller.js';
import { AuditRepository } from './audit.repository.js';

@ObjectType('AuditRecord')
class AuditRecordType {
  @Field(() => Float) sequence!: number;
  @Field(() => String) at!: string;
  @Field(() => String) actor!: string;
  @Field(() => String) action!: string;
  @Field(() => String) subject!: string;
  @Field(() => String, { nullable: true, description: 'JSON' }) before!: string | null;
  @Field(() => String, { nullable: true, description: 'JSON' }) after!: string | null;
  @Field(() => String) previous!: string;
  @Field(() => String) hash!: string;
}

@ObjectType('AuditHead')
class AuditHeadType {
  @Field(() => Float) sequence!: number;
  @Field(() => String) hash!: string;
}

@Resolver(() => AuditRecordType)
export class AuditResolver {
  constructor(private readonly audit: AuditRepository) {}

  @Query(() => [AuditRecordType], { description: 'Newest first.' })
  async auditRecords(
    @Args('limit', { type: () => Int, defaultValue: 100 }) limit: number,
    @Args('before', { type: () => Float, nullable: true }) before: number | null,
    @Args('subject', { type: () => String, nullable: true }) subject: string | null,
  ): Promise<AuditRecordType[]> {
    const bounded = Math.max(1, Math.min(limit, AUDIT_PAGE_MAX));
    return (await this.audit.newest(bounded, { before: before ?? undefined, subject: subject ?? undefined })).map(toGraphql);
  }

  @Query(() => AuditHeadType)
  auditHead(): Promise<AuditHeadType> {
    return this.audit.head();
  }
}

const json = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
const toGraphql = (record: AuditRecord): AuditRecordType => ({ ...record, before: json(record.before), after: json(record.after) });
