import { Field, Float, ID, InputType, Int, ObjectType } from '@nestjs/graphql';

/** GraphQL shapes of a device; the same nouns as REST. Byte counts are floats, because GraphQL's Int ends at 2^31. */
@ObjectType('Capabilities')
export class CapabilitiesType {
  @Field(() => String) architecture!: string;
  @Field(() => String) platform!: string;
  @Field(() => Int) cores!: number;
  @Field(() => [String]) cpuFeatures!: string[];
  @Field(() => Float) totalMemoryBytes!: number;
  @Field(() => Float) availableMemoryBytes!: number;
  @Field(() => Float) modelMemoryBytes!: number;
  @Field(() => Float) runtimeMemoryBytes!: number;
  @Field(() => Float) freeDiskBytes!: number;
  @Field(() => Float) memoryBandwidthBytesPerSecond!: number;
  @Field(() => [String]) executionProviders!: string[];
  @Field(() => String) nodeVersion!: string;
  @Field(() => String) runtimeVersion!: string;
  @Field(() => Float, { nullable: true, description: 'Limit of the control group that holds the agent; 0: none.' }) memoryLimitBytes?: number;
  @Field(() => Float, { nullable: true, description: 'Median of random 4 KiB reads past the page cache.' }) diskRandomReadMs?: number | null;
  @Field(() => Boolean, { nullable: true, description: 'Processor and accelerator share one memory.' }) unifiedMemory?: boolean;
  @Field(() => String, { nullable: true, description: 'IANA name; maintenance windows are read on its clock.' }) timeZone?: string;
}

@ObjectType('Condition', { description: 'How a box is doing right now; null where it does not tell.' })
export class ConditionType {
  @Field(() => Float, { nullable: true, description: 'Of the last ten seconds: some process waited for memory.' }) memorySomePercent!: number | null;
  @Field(() => Float, { nullable: true, description: 'Every process waited for memory.' }) memoryFullPercent!: number | null;
  @Field(() => String, { nullable: true, description: 'mains or battery' }) power!: string | null;
  @Field(() => Float, { nullable: true }) batteryPercent!: number | null;
  @Field(() => Float, { nullable: true }) temperatureCelsius!: number | null;
  @Field(() => Float, { nullable: true, description: 'Where the kernel begins to slow the processor down.' }) throttlesAtCelsius!: number | null;
  @Field(() => Float, { nullable: true }) roundTripMs!: number | null;
}

@ObjectType('Desired')
export class DesiredType {
  @Field(() => Float) generation!: number;
  @Field(() => String) modelVersionId!: string;
  @Field(() => String) modelName!: string;
  @Field(() => String) sliceId!: string;
  @Field(() => String) reason!: string;
}

@ObjectType('Observed')
export class ObservedType {
  @Field(() => Float) generation!: number;
  @Field(() => String) modelVersionId!: string;
  @Field(() => String) sliceId!: string;
}

@ObjectType('Quantiles')
export class QuantilesType {
  @Field(() => Float) p50!: number;
  @Field(() => Float) p95!: number;
}

@ObjectType('Latency')
export class LatencyType {
  @Field(() => QuantilesType) ttftMs!: QuantilesType;
  @Field(() => QuantilesType) interTokenMs!: QuantilesType;
  @Field(() => Float) tokensPerSecond!: number;
  @Field(() => Float) samples!: number;
}

@ObjectType('Activation', { description: "How a device's trial of its desired slice went." })
export class ActivationType {
  @Field(() => String, { description: 'verifying, preparing, starting, checking, committed, rejected or reverted' }) step!: string;
  @Field(() => String, { nullable: true }) reason!: string | null;
  @Field(() => String, {
    nullable: true,
    description: 'fetch, verify, disk, start, golden, latency, memory, crash-loop or interrupted',
  })
  failure!: string | null;
  @Field(() => Int) goldenPromptsTotal!: number;
  @Field(() => Int) goldenPromptsMatched!: number;
  @Field(() => Int) goldenTokensTotal!: number;
  @Field(() => Int) goldenTokensMatched!: number;
  @Field(() => Int, { description: 'Golden tokens of the slice that was active before; 0 where there was none to compare.' })
  previousTokensTotal!: number;
  @Field(() => Int) previousTokensMatched!: number;
  @Field(() => Float, { nullable: true }) ttftMs!: number | null;
  @Field(() => Float, { nullable: true }) interTokenMs!: number | null;
  @Field(() => Float, { nullable: true }) residentBytes!: number | null;
  @Field(() => Boolean, { description: 'The old engine had to stop before the candidate could start.' }) replacedFirst!: boolean;
}

@ObjectType('Label')
export class LabelType {
  @Field(() => String) key!: string;
  @Field(() => String) value!: string;
}

@InputType()
export class LabelInput {
  @Field(() => String) key!: string;
  @Field(() => String, { nullable: true, description: 'Null takes the label away.' }) value!: string | null;
}

@ObjectType('EffectiveSlice')
class EffectiveSliceType {
  @Field(() => String) sliceId!: string;
  @Field(() => String) reason!: string;
}

@ObjectType('Device')
export class DeviceType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
  @Field(() => [LabelType]) labels!: LabelType[];
  @Field(() => String, { nullable: true }) agentVersion!: string | null;
  @Field(() => String, { description: 'accepted, quarantined or revoked' }) standing!: string;
  @Field(() => String, { nullable: true }) standingReason!: string | null;
  @Field(() => String, { description: 'online, suspect or offline' }) presence!: string;
  @Field(() => Date, { nullable: true }) lastSeenAt!: Date | null;
  @Field(() => CapabilitiesType, { nullable: true }) capabilities!: CapabilitiesType | null;
  @Field(() => ConditionType, { nullable: true }) condition!: ConditionType | null;
  @Field(() => EffectiveSliceType, { nullable: true, description: 'Answers instead of what runs, while the box is under pressure.' })
  effective!: EffectiveSliceType | null;
  @Field(() => DesiredType, { nullable: true }) desired!: DesiredType | null;
  @Field(() => ObservedType, { nullable: true }) observed!: ObservedType | null;
  @Field(() => String, { nullable: true }) phase!: string | null;
  @Field(() => String, { nullable: true }) phaseError!: string | null;
  @Field(() => ActivationType, { nullable: true }) activation!: ActivationType | null;
  @Field(() => Float) fetchedBytes!: number;
  @Field(() => Float) totalBytes!: number;
  @Field(() => LatencyType, { nullable: true }) latency!: LatencyType | null;
  @Field(() => Float) latencyCorrection!: number;
}
