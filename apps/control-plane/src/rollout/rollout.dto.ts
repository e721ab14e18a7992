import { Field, Float, ID, Int, ObjectType } from '@nestjs/graphql';
import { ApiProperty } from '@nestjs/swagger';
import { ROLLOUT_STATES, WAVE_STATES } from '../domain/rollout-sight.js';
import { TARGET_STATES, type Tally } from '../domain/rollout-target.js';
import type { Rollout, RolloutEvent, RolloutTarget, RolloutWave } from './rollout.js';

@ObjectType('RolloutCount')
export class RolloutCountDto {
  @Field() @ApiProperty({ enum: TARGET_STATES }) state!: string;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) devices!: number;
}

@ObjectType('RolloutGate')
export class RolloutGateDto {
  @Field() @ApiProperty({ enum: ['ttft', 'inter-token', 'errors', 'agreement'] }) gate!: string;
  @Field() @ApiProperty({ enum: ['passed', 'failed', 'unknown'] }) verdict!: string;
  @Field({ description: 'With the numbers.' }) @ApiProperty({ description: 'With the numbers.' }) reason!: string;
}

@ObjectType('RolloutWave')
export class RolloutWaveDto {
  @Field(() => Int, { description: 'From 1.' }) @ApiProperty({ type: 'integer', description: 'From 1.' }) wave!: number;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) name!: string | null;
  @Field() @ApiProperty({ enum: WAVE_STATES }) state!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) reason!: string | null;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) devices!: number;
  @Field(() => [RolloutCountDto], { description: 'States without devices are left out.' })
  @ApiProperty({ type: [RolloutCountDto] })
  counts!: RolloutCountDto[];
  @Field(() => [RolloutGateDto]) @ApiProperty({ type: [RolloutGateDto] }) gates!: RolloutGateDto[];
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) openedAt!: string | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) endedAt!: string | null;
}

@ObjectType('RolloutHold')
export class RolloutHoldDto {
  @Field({ description: 'away, retry, window, spread, rate or other-rollout' }) @ApiProperty() why!: string;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) devices!: number;
}

@ObjectType('RolloutTarget')
export class RolloutTargetDto {
  @Field(() => ID) @ApiProperty() rolloutId!: string;
  @Field(() => ID) @ApiProperty() deviceId!: string;
  @Field() @ApiProperty() deviceName!: string;
  @Field(() => Int, { description: 'From 1.' }) @ApiProperty({ type: 'integer', description: 'From 1.' }) wave!: number;
  @Field() @ApiProperty({ enum: TARGET_STATES }) state!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) reason!: string | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) failure!: string | null;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) attempts!: number;
  @Field(() => Float, { nullable: true, description: 'Of the desired document that brings the version, or takes it back.' })
  @ApiProperty({ type: 'integer', nullable: true })
  generation!: number | null;
  @Field() @ApiProperty({ format: 'date-time' }) changedAt!: string;
}

@ObjectType('RolloutEvent')
export class RolloutEventDto {
  @Field() @ApiProperty({ format: 'date-time' }) at!: string;
  @Field(() => Int, { nullable: true, description: 'From 1; null for the whole rollout.' }) @ApiProperty({ type: 'integer', nullable: true }) wave!:
    number | null;
  @Field() @ApiProperty() state!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) reason!: string | null;
  @Field(() => String, { nullable: true, description: 'Who asked for it; null for its own decision.' })
  @ApiProperty({ type: String, nullable: true })
  actor!: string | null;
}

@ObjectType('Rollout')
export class RolloutDto {
  @Field(() => ID) @ApiProperty() id!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) name!: string | null;
  @Field(() => ID) @ApiProperty() modelVersionId!: string;
  @Field() @ApiProperty({ enum: ROLLOUT_STATES }) state!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) reason!: string | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) filter!: string | null;
  @Field() @ApiProperty() wholeFleet!: boolean;
  @Field({ description: 'JSON, every default filled in.' }) planJson!: string;
  @ApiProperty({ type: Object, additionalProperties: true, description: 'Every default filled in.' }) plan!: object;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) devices!: number;
  @Field(() => [RolloutCountDto], { description: 'Of all waves; states without devices are left out.' })
  @ApiProperty({ type: [RolloutCountDto] })
  counts!: RolloutCountDto[];
  @Field(() => [RolloutHoldDto], { description: 'What devices of the running wave wait for.' })
  @ApiProperty({ type: [RolloutHoldDto] })
  holds!: RolloutHoldDto[];
  @Field(() => [RolloutWaveDto]) @ApiProperty({ type: [RolloutWaveDto] }) waves!: RolloutWaveDto[];
  @Field() @ApiProperty({ format: 'date-time' }) createdAt!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) finishedAt!: string | null;
}

const counts = (tally: Tally): RolloutCountDto[] =>
  TARGET_STATES.map((state) => ({ state, devices: tally[state] })).filter(({ devices }) => devices > 0);
const sum = (tally: Tally): number => TARGET_STATES.reduce((total, state) => total + tally[state], 0);

const toWaveDto = (wave: RolloutWave): RolloutWaveDto => ({
  ...{ wave: wave.ordinal + 1, name: wave.name, state: wave.state, reason: wave.reason, devices: sum(wave.tally), counts: counts(wave.tally) },
  ...{ gates: wave.gates.map((gate) => ({ ...gate })), openedAt: wave.openedAt?.toISOString() ?? null, endedAt: wave.endedAt?.toISOString() ?? null },
});

export const toRolloutDto = (rollout: Rollout): RolloutDto => ({
  ...{
    id: rollout.id,
    name: rollout.name,
    modelVersionId: rollout.modelVersionId,
    state: rollout.state,
    reason: rollout.reason,
    filter: rollout.filter,
  },
  ...{
    wholeFleet: rollout.wholeFleet,
    plan: rollout.plan,
    planJson: JSON.stringify(rollout.plan),
    devices: sum(rollout.tally),
    counts: counts(rollout.tally),
  },
  holds: Object.entries(rollout.holds).map(([why, devices]) => ({ why, devices })),
  waves: rollout.waves.map(toWaveDto),
  ...{ createdAt: rollout.createdAt.toISOString(), finishedAt: rollout.finishedAt?.toISOString() ?? null },
});

export const toTargetDto = (target: RolloutTarget): RolloutTargetDto => ({
  ...{ rolloutId: target.rolloutId, deviceId: target.deviceId, deviceName: target.deviceName, wave: target.wave + 1, state: target.state },
  ...{
    reason: target.reason,
    failure: target.failure,
    attempts: target.attempts,
    generation: target.generation,
    changedAt: target.changedAt.toISOString(),
  },
});

export const toEventDto = ({ at, wave, ...event }: RolloutEvent): RolloutEventDto => ({
  ...event,
  at: at.toISOString(),
  wave: wave === null ? null : wave + 1,
});
