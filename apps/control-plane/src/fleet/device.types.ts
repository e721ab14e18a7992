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

@ObjectType('Device')
export class DeviceType {
  @Field(() => ID) id!: string;
  @Field(() => String) name!: string;
  @Field(() => [LabelType]) labels!: LabelType[];
  @Field(() => String, { nullable: true }) agentVersion!: string | null;
  @Field(() => String, { description: 'online, suspect or offline' }) presence!: string;
  @Field(() => Date, { nullable: true }) lastSeenAt!: Date | null;
  @Field(() => CapabilitiesType, { nullable: true }) capabilities!: CapabilitiesType | null;
  @Field(() => DesiredType, { nullable: true }) desired!: DesiredType | null;
  @Field(() => ObservedType, { nullable: true }) observed!: ObservedType | null;
  @Field(() => String, { nullable: true }) phase!: string | null;
  @Field(() => String, { nullable: true }) phaseError!: string | null;
  @Field(() => Float) fetchedBytes!: number;
  @Field(() => Float) totalBytes!: number;
  @Field(() => LatencyType, { nullable: true }) latency!: LatencyType | null;
  @Field(() => Float) latencyCorrection!: number;
}
