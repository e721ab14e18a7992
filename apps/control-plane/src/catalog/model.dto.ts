import { Field, Float, ID, Int, ObjectType } from '@nestjs/graphql';
import { ApiProperty } from '@nestjs/swagger';
import { chunksOf, type Quality } from '@matfleet/model';
import type { ModelVersion } from './catalog.service.js';

@ObjectType('Quality', { description: 'A measured score, 0 to 1.' })
export class QualityDto {
  @Field(() => Float) @ApiProperty({ minimum: 0, maximum: 1 }) value!: number;
  @Field(() => Int, { description: 'Number of examples behind it; 0 when unknown.' }) @ApiProperty({ type: 'integer' }) samples!: number;
  @Field(() => Float, { description: 'Standard error of `value`.' }) @ApiProperty() stderr!: number;
}

@ObjectType('TaskQuality')
export class TaskQualityDto {
  @Field() task!: string;
  @Field(() => QualityDto) quality!: QualityDto;
}

@ObjectType('ModelSlice', { description: 'One MatFormer slice of a model version.' })
export class ModelSliceDto {
  @Field(() => ID) @ApiProperty() id!: string;
  @Field() @ApiProperty() name!: string;
  @Field(() => QualityDto, { nullable: true }) @ApiProperty({ type: QualityDto, nullable: true }) quality!: QualityDto | null;
  @ApiProperty({ type: 'object', additionalProperties: { $ref: '#/components/schemas/QualityDto' }, nullable: true, description: 'Quality by task.' })
  tasks!: Record<string, Quality> | null;
  @Field(() => Float, { description: 'Bytes of the chunks that this slice needs.' }) @ApiProperty({ type: 'integer' }) bytes!: number;
}

@ObjectType('ModelVersion')
export class ModelVersionDto {
  @Field(() => ID, { description: "SHA-256 of the manifest's bytes." }) @ApiProperty() id!: string;
  @Field() @ApiProperty() name!: string;
  @Field() @ApiProperty({ example: 'int8' }) precision!: string;
  @Field() @ApiProperty({ format: 'date-time' }) createdAt!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) publishedAt!: string | null;
  @Field(() => Float, { description: 'Bytes of all chunks.' }) @ApiProperty({ type: 'integer' }) totalBytes!: number;
  @Field(() => [ModelSliceDto]) @ApiProperty({ type: [ModelSliceDto] }) slices!: ModelSliceDto[];
}

export class RegisteredModelDto {
  @ApiProperty() id!: string;
  @ApiProperty() name!: string;
  @ApiProperty({ type: [String], description: 'Ids of chunks that are still to be sent.' }) missingChunks!: string[];
  @ApiProperty() published!: boolean;
}

export function toModelVersionDto({ id, name, createdAt, publishedAt, manifest }: ModelVersion): ModelVersionDto {
  return {
    id,
    name,
    precision: manifest.precision.kind,
    createdAt: createdAt.toISOString(),
    publishedAt: publishedAt?.toISOString() ?? null,
    totalBytes: sumBytes(manifest.chunks),
    slices: manifest.slices.map((slice) => ({
      id: slice.id,
      name: slice.name,
      quality: slice.quality ?? null,
      tasks: slice.tasks ?? null,
      bytes: sumBytes(chunksOf(manifest, slice)),
    })),
  };
}

const sumBytes = (chunks: readonly { bytes: number }[]): number => chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
