import { create, toBinary } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_SequenceSchema,
  TypeProto_TensorSchema,
  TypeProtoSchema,
  ValueInfoProtoSchema,
  type AttributeProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from 'onnx-buf';
import type { ExternalTensor } from './onnx-file.js';

/** The name of a tensor inside the graph. */
export type Value = string;
type Attributes = Record<string, number | string | { float: number } | number[]>;
type ElementType = 'float32' | 'uint8' | 'int32' | 'int64';

/** Where an external tensor's bytes lie, and forms of it that were packed before. */
export type ExternalPlace = Pick<ExternalTensor, 'location' | 'offset' | 'bytes'> & Partial<Pick<ExternalTensor, 'packed'>>;

const ELEMENT_TYPE: Record<ElementType, DataType> = { float32: DataType.FLOAT, uint8: DataType.UINT8, int32: DataType.INT32, int64: DataType.INT64 };
const IR_VERSION = 10n;
const OPSET = 23n;
const CONTRIB = 'com.microsoft';

/** Writes an ONNX graph one operator at a time; each call returns the name of its result. */
export class GraphBuilder {
  private readonly nodes: NodeProto[] = [];
  private readonly initializers = new Map<string, TensorProto>();
  private readonly inputs: ValueInfoProto[] = [];
  private readonly outputs: ValueInfoProto[] = [];
  private readonly renamed = new Map<Value, string>();
  private counter = 0;

  /** A graph input; strings in the shape are symbolic dimensions. */
  input(name: string, type: ElementType, shape: (number | string)[]): Value {
    this.inputs.push(valueInfo(name, type, shape));
    return name;
  }

  output(name: string, value: Value, type: ElementType, shape: (number | string)[]): void {
    this.nodes.push(create(NodeProtoSchema, { opType: 'Identity', input: [value], output: [name], name: `out/${name}` }));
    this.outputs.push(valueInfo(name, type, shape));
  }

  /** An output that is no tensor: an empty sequence of them. */
  emptySequence(name: string): void {
    this.nodes.push(create(NodeProtoSchema, { opType: 'SequenceEmpty', output: [name], name: `out/${name}` }));
    const elemType = create(TypeProtoSchema, { value: { case: 'tensorType', value: create(TypeProto_TensorSchema, { elemType: DataType.FLOAT }) } });
    const type = create(TypeProtoSchema, { value: { case: 'sequenceType', value: create(TypeProto_SequenceSchema, { elemType }) } });
    this.outputs.push(create(ValueInfoProtoSchema, { name, type }));
  }

  /** Makes the result itself an output under another name, so that it is written where the caller says, without a copy. */
  rename(value: Value, name: string, type: ElementType, shape: (number | string)[]): void {
    this.renamed.set(value, name);
    this.outputs.push(valueInfo(name, type, shape));
  }

  /** An operator of the ONNX standard set. */
  op(opType: string, inputs: Value[], attributes: Attributes = {}): Value {
    return this.node('', opType, inputs, attributes, 1)[0]!;
  }

  ops(opType: string, inputs: Value[], outputs: number, attributes: Attributes = {}): Value[] {
    return this.node('', opType, inputs, attributes, outputs);
  }

  /** An operator that ONNX Runtime adds. */
  contrib(opType: string, inputs: Value[], attributes: Attributes = {}): Value {
    return this.node(CONTRIB, opType, inputs, attributes, 1)[0]!;
  }

  contribs(opType: string, inputs: Value[], outputs: number, attributes: Attributes = {}): Value[] {
    return this.node(CONTRIB, opType, inputs, attributes, outputs);
  }

  /** Values stored in the graph file itself. Equal names are one tensor. */
  floats(name: string, shape: number[], values: Float32Array): Value {
    return this.inline(name, 'float32', shape, bytesOf(values));
  }

  bytesConstant(name: string, shape: number[], values: Uint8Array): Value {
    return this.inline(name, 'uint8', shape, values);
  }

  ints(...values: number[]): Value {
    return this.inline(`ints/${values.join(',')}`, 'int64', [values.length], bytesOf(BigInt64Array.from(values, BigInt)));
  }

  scalarInt(value: number): Value {
    return this.inline(`int/${value}`, 'int64', [], bytesOf(BigInt64Array.of(BigInt(value))));
  }

  scalar(value: number): Value {
    return this.inline(`float/${value}`, 'float32', [], bytesOf(Float32Array.of(value)));
  }

  /** Values that stay in another file, `location` relative to the graph's folder; 4096-aligned offsets are mapped in place. */
  external(name: string, type: ElementType, shape: number[], place: ExternalPlace): Value {
    if (this.initializers.has(name)) return name;
    const { location, offset, bytes, packed = [] } = place;
    const entries = {
      location,
      offset: String(offset),
      length: String(bytes),
      ...Object.fromEntries(packed.map((blob, i) => [`prepacked_${i}`, `${blob.key}|${blob.offset};${blob.bytes};${blob.flag}`])),
    };
    this.initializers.set(
      name,
      create(TensorProtoSchema, {
        name,
        dataType: ELEMENT_TYPE[type],
        dims: shape.map(BigInt),
        dataLocation: DataLocation.EXTERNAL,
        externalData: Object.entries(entries).map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
      }),
    );
    return name;
  }

  /** The serialised ModelProto. */
  toBytes(): Uint8Array {
    const named = (value: Value): Value => this.renamed.get(value) ?? value;
    for (const node of this.nodes) [node.input, node.output] = [node.input.map(named), node.output.map(named)];
    const opset = (domain: string, version: bigint) => create(OperatorSetIdProtoSchema, { domain, version });
    const graph = create(GraphProtoSchema, {
      name: 'gemma3n',
      node: this.nodes,
      initializer: [...this.initializers.values()],
      input: this.inputs,
      output: this.outputs,
    });
    const model = create(ModelProtoSchema, {
      irVersion: IR_VERSION,
      producerName: 'matfleet',
      graph,
      opsetImport: [opset('', OPSET), opset(CONTRIB, 1n)],
    });
    return toBinary(ModelProtoSchema, model);
  }

  private inline(name: string, type: ElementType, shape: number[], rawData: Uint8Array): Value {
    if (!this.initializers.has(name))
      this.initializers.set(
        name,
        create(TensorProtoSchema, { name, dataType: ELEMENT_TYPE[type], dims: shape.map(BigInt), rawData: new Uint8Array(rawData) }),
      );
    return name;
  }

  private node(domain: string, opType: string, input: Value[], attributes: Attributes, outputs: number): Value[] {
    const id = `${opType}_${this.counter++}`;
    const output = outputs === 1 ? [id] : Array.from({ length: outputs }, (_, i) => `${id}:${i}`);
    this.nodes.push(create(NodeProtoSchema, { name: id, domain, opType, input, output, attribute: Object.entries(attributes).map(attribute) }));
    return output;
  }
}

const bytesOf = (values: Float32Array | BigInt64Array): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function attribute([name, value]: [string, Attributes[string]]): AttributeProto {
  if (typeof value === 'string') return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  if (typeof value === 'number') return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
  if (Array.isArray(value)) return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: value.map(BigInt) });
  return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value.float });
}

function valueInfo(name: string, type: ElementType, shape: (number | string)[]): ValueInfoProto {
  const dim = shape.map((d) =>
    create(TensorShapeProto_DimensionSchema, {
      value: typeof d === 'number' ? { case: 'dimValue', value: BigInt(d) } : { case: 'dimParam', value: d },
    }),
  );
  const tensor = create(TypeProto_TensorSchema, { elemType: ELEMENT_TYPE[type], shape: create(TensorShapeProtoSchema, { dim }) });
  return create(ValueInfoProtoSchema, { name, type: create(TypeProtoSchema, { value: { case: 'tensorType', value: tensor } }) });
}
