import { Field, Float, ID, Int, ObjectType } from '@nestjs/graphql';
import { ApiProperty } from '@nestjs/swagger';
import { chunksOf, type Quality, sliceRoot } from '@matfleet/model';
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
  @Field(() => [Int], { description: 'FFN width of each layer that it keeps.' }) @ApiProperty({ type: [Number] }) ffn!: number[];
  @Field(() => [Int], { description: 'Layers that it skips, in original numbering.' }) @ApiProperty({ type: [Number] }) skip!: number[];
  @Field({ description: 'Merkle root over its chunks: what every device that holds it agrees on.' }) @ApiProperty() root!: string;
}

@ObjectType('Evaluation', { description: 'What the qualities of the slices were measured on.' })
export class EvaluationDto {
  @Field() @ApiProperty() metric!: string;
  @Field() @ApiProperty() dataset!: string;
  @Field(() => String, { nullable: true, description: 'Of the data set.' }) @ApiProperty({ type: String, nullable: true }) sha256!: string | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) date!: string | null;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, nullable: true }) command!: string | null;
}

@ObjectType('ModelVersion')
export class ModelVersionDto {
  @Field(() => ID, { description: "SHA-256 of the manifest's bytes." }) @ApiProperty() id!: string;
  @Field() @ApiProperty() name!: string;
  @Field() @ApiProperty({ example: 'int8' }) precision!: string;
  @Field() @ApiProperty({ format: 'date-time' }) createdAt!: string;
  @Field(() => String, { nullable: true }) @ApiProperty({ type: String, format: 'date-time', nullable: true }) publishedAt!: string | null;
  @Field(() => String, { nullable: true, description: 'Kept whatever happens since then.' })
  @ApiProperty({ type: String, format: 'date-time', nullable: true })
  pinnedAt!: string | null;
  @Field(() => String, { nullable: true, description: 'Collected as garbage then.' })
  @ApiProperty({ type: String, format: 'date-time', nullable: true })
  retiredAt!: string | null;
  @Field(() => EvaluationDto, { nullable: true }) @ApiProperty({ type: EvaluationDto, nullable: true }) evaluation!: EvaluationDto | null;
  @Field(() => Int) @ApiProperty({ type: 'integer' }) chunkCount!: number;
  @Field(() => Float, { description: 'Bytes of all chunks.' }) @ApiProperty({ type: 'integer' }) totalBytes!: number;
  @Field(() => [ModelSliceDto]) @ApiProperty({ type: [ModelSliceDto] }) slices!: ModelSliceDto[];
}

export class RegisteredModelDto {
  @ApiProperty() id!: string;
  @ApiProperty() name!: string;
  @ApiProperty({ type: [String], description: 'Ids of chunks that are still to be sent.' }) missingChunks!: string[];
  @ApiProperty() published!: boolean;
}

export function toModelVersionDto({ id, name, createdAt, publishedAt, pinnedAt, retiredAt, manifest }: ModelVersion): ModelVersionDto {
  const { evaluation } = manifest;
  return {
    id,
    name,
    precision: manifest.precision.kind,
    createdAt: createdAt.toISOString(),
    publishedAt: publishedAt?.toISOString() ?? null,
    pinnedAt: pinnedAt?.toISOString() ?? null,
    retiredAt: retiredAt?.toISOString() ?? null,
    evaluation: evaluation
      ? {
          metric: evaluation.metric,
          dataset: evaluation.dataset,
          sha256: evaluation.sha256 ?? null,
          date: evaluation.date ?? null,
          command: evaluation.command ?? null,
        }
      : null,
    chunkCount: manifest.chunks.length,
    totalBytes: sumBytes(manifest.chunks),
    slices: manifest.slices.map((slice) => ({
      ffn: slice.ffn,
      skip: slice.skip,
      root: sliceRoot(chunksOf(manifest, slice)),
      id: slice.id,
      name: slice.name,
      quality: slice.quality ?? null,
      tasks: slice.tasks ?? null,
      bytes: sumBytes(chunksOf(manifest, slice)),
    })),
  };
}

const sumBytes = (chunks: readonly { bytes: number }[]): number => chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
