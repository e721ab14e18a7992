import { Args, Field, Float, ID, Int, ObjectType, Query, Resolver, Subscription } from '@nestjs/graphql';
import { ZodPipe } from '../zod.pipe.js';
import { TimelineList } from './timeline.controller.js';
import type { TimelineEntry } from './timeline.js';
import { Timeline } from './timeline.service.js';

@ObjectType('TimelineEntry')
class TimelineEntryType {
  @Field(() => Float, { description: 'Grows with time.' }) id!: number;
  @Field(() => String) at!: string;
  @Field(() => String) kind!: string;
  @Field(() => String, { description: 'The detail in plain words.' }) summary!: string;
  @Field(() => String, { description: 'JSON; what stands in it follows from the kind.' }) detail!: string;
}

@ObjectType('TimelinePage')
class TimelinePageType {
  @Field(() => [TimelineEntryType], { description: 'Newest first.' }) entries!: TimelineEntryType[];
  @Field(() => Float, { nullable: true, description: '`before` of the next page; null at the end.' }) next!: number | null;
}

@Resolver(() => TimelineEntryType)
export class TimelineResolver {
  constructor(private readonly timeline: Timeline) {}

  @Query(() => TimelinePageType, { description: 'What happened to a device.' })
  async deviceTimeline(
    @Args('deviceId', { type: () => ID }) deviceId: string,
    @Args('limit', { type: () => Int, defaultValue: 100 }) limit: number,
    @Args('before', { type: () => Float, nullable: true }) before: number | null,
    @Args('kind', { type: () => String, nullable: true }) kind: string | null,
  ): Promise<TimelinePageType> {
    const query = new ZodPipe(TimelineList).transform({ limit, before: before ?? undefined, kind: kind ?? undefined });
    const { entries, next } = await this.timeline.page(deviceId, query);
    return { entries: entries.map(toGraphql), next };
  }

  @Subscription(() => TimelineEntryType, {
    resolve: (entry: TimelineEntry) => toGraphql(entry),
    description: 'What happens to a device from now on.',
  })
  deviceTimelineGrew(@Args('deviceId', { type: () => ID }) deviceId: string): AsyncIterableIterator<TimelineEntry> {
    return this.timeline.follow(deviceId);
  }
}

const toGraphql = ({ at, detail, ...entry }: TimelineEntry): TimelineEntryType => ({
  ...entry,
  at: at.toISOString(),
  detail: JSON.stringify(detail),
});
