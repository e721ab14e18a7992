import { Field, Float, ID, ObjectType } from '@nestjs/graphql';
import { ApiProperty } from '@nestjs/swagger';
import type { UpdateView } from './update.js';

@ObjectType('UpdateTarget')
export class UpdateTargetDto {
  @Field(() => ID) @ApiProperty() deviceId!: string;
  @Field() @ApiProperty() deviceName!: string;
  @Field() @ApiProperty({ enum: ['pending', 'pushed', 'succeeded', 'failed'] }) state!: string;
  @Field(() => Float, { nullable: true, description: 'Of the desired document that brings the version.' })
  @ApiProperty({ type: 'integer', nullable: true })
  generation!: number | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) error!: string | null;
}

@ObjectType('Update')
export class UpdateDto {
  @Field(() => ID) @ApiProperty() id!: string;
  @Field(() => ID) @ApiProperty() modelVersionId!: string;
  @Field() @ApiProperty({ enum: ['running', 'succeeded', 'failed'] }) state!: string;
  @Field(() => [UpdateTargetDto]) @ApiProperty({ type: [UpdateTargetDto] }) targets!: UpdateTargetDto[];
  @Field() @ApiProperty({ format: 'date-time' }) createdAt!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) finishedAt!: string | null;
}

export const toUpdateDto = (update: UpdateView): UpdateDto => ({
  ...update,
  targets: update.targets.map((target) => ({ ...target })),
  createdAt: update.createdAt.toISOString(),
  finishedAt: update.finishedAt?.toISOString() ?? null,
});
