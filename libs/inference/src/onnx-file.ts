import { fromBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema } from 'onnx-buf';

/** A tensor that an ONNX graph keeps in another file, and the packed forms that ONNX Runtime saved beside it. */
export interface ExternalTensor {
  readonly name: string;
  readonly location: string;
  readonly offset: number;
  readonly bytes: number;
  readonly packed: readonly { key: string; offset: number; bytes: number; flag: string }[];
}

/** The external tensors of a serialised ModelProto. `prepacked_<n>` entries read `key|offset;bytes;flag`. */
export function externalTensors(model: Uint8Array): ExternalTensor[] {
  const { graph } = fromBinary(ModelProtoSchema, model);
  return (graph?.initializer ?? [])
    .filter(({ externalData }) => externalData.length > 0)
    .map(({ name, externalData }) => {
      const entries = new Map(externalData.map(({ key, value }) => [key, value]));
      const packed = [...entries]
        .filter(([key]) => key.startsWith('prepacked_'))
        .map(([, value]) => {
          const [key, place] = value.split('|') as [string, string];
          const [offset, bytes, flag] = place.split(';') as [string, string, string];
          return { key, offset: Number(offset), bytes: Number(bytes), flag };
        });
      return { name, location: entries.get('location')!, offset: Number(entries.get('offset') ?? 0), bytes: Number(entries.get('length')), packed };
    });
}
