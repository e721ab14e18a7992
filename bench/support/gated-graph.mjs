// One graph for every width: the extension band of each layer stands behind `If` on an input. Rewrites the graph of the widest slice.
//
// Flat, never one `If` inside another: ONNX Runtime 1.30.0 does not pack products that lie deeper. Initializers stay in the outer graph.
import { create } from '@bufbuild/protobuf';
import { AttributeProto_AttributeType, AttributeProtoSchema, GraphProtoSchema, NodeProtoSchema, ValueInfoProtoSchema } from 'onnx-buf';
import { normalQuantile } from '../../libs/inference/dist/gemma3n.js';
import { bandName } from '../../libs/inference/dist/import-chunks.js';

const BOOL = 9;

/** Gates the band that begins at `from` in every layer; `g` holds the forward pass of a slice that has it everywhere. Returns the inputs' names. */
export function gateExtension(g, { config }, from) {
  const layers = config.numHiddenLayers;
  const inputs = [];
  for (let layer = 0; layer < layers; layer++) {
    const condition = g.input(`wide.${layer}`, 'int32', []);
    g.inputs.at(-1).type.value.value.elemType = BOOL;
    inputs.push(condition);
    const product = (name) =>
      g.nodes.find(({ opType, input }) => opType === 'MatMulNBits' && input[1] === bandName(`layers.${layer}.mlp.${name}_proj.weight`, from));
    const [gate, up, down] = ['gate', 'up', 'down'].map(product);
    const readers = (value) => g.nodes.filter(({ input }) => input.includes(value));
    const [sum] = readers(down.output[0]);
    const base = sum.input.find((value) => value !== down.output[0]);
    const [act] = g.nodes.filter(({ output }) => output[0] === down.input[0]); // gelu(gate) · up
    const [gelu] = g.nodes.filter(({ output }) => act.input.includes(output[0]) && output[0] !== up.output[0]);
    const sparsity = config.activationSparsityPattern[layer];
    if (sparsity > 0) gateStatistics(gate, sparsity, condition);
    gated(sum, condition, [...(sparsity > 0 ? [] : [gate]), gelu, up, act, down, sum], [identity(base, sum.output[0])], sum.output);
  }
  return inputs;

  /** The cutoff of a sparse layer counts all active channels. Narrow, the second output stands for nothing and nobody reads it. */
  function gateStatistics(gate, sparsity, condition) {
    const next = ({ output }) => g.nodes.find(({ input }) => input.some((value) => output.includes(value)));
    const concat = next(gate);
    const norm = next(concat);
    const relu = next(norm);
    const div = next(relu);
    const split = g.nodes.find(({ input }) => input[0] === div.output[0]);
    const [gateBase] = concat.input;
    const copy = (node, input, output) => create(NodeProtoSchema, { ...node, name: `${node.name}/narrow`, input, output });
    const narrow = (value) => `${value}/narrow`;
    const scale = g.floats(`ones/${from}`, [from], new Float32Array(from).fill(1));
    const cutoff = g.floats(`cutoff/${from}/${sparsity}`, [from], new Float32Array(from).fill(-normalQuantile(sparsity)));
    const result = narrow(split.output[0]);
    gated(
      split,
      condition,
      [gate, concat, norm, relu, div, split],
      [
        copy(norm, [gateBase, scale, cutoff], norm.output.map(narrow)),
        copy(relu, relu.input.map(narrow), relu.output.map(narrow)),
        copy(div, div.input.map(narrow), [result]),
        identity(result, split.output[0]),
        identity(result, split.output[1]),
      ],
      split.output,
    );
  }

  /** Puts an `If` in the place of `last`: `inside` when the condition holds, else `otherwise`; both yield `outputs`. */
  function gated(last, condition, inside, otherwise, outputs) {
    const branch = (kind, nodes) => {
      const names = outputs.map((value) => `${value}/${kind}`);
      const renamed = nodes.map((node) => ({
        ...node,
        input: node.input.map((value) => (outputs.includes(value) ? `${value}/${kind}` : value)),
        output: node.output.map((value) => (outputs.includes(value) ? `${value}/${kind}` : value)),
      }));
      const graph = create(GraphProtoSchema, {
        name: `${last.name}/${kind}`,
        node: renamed.map((node) => create(NodeProtoSchema, node)),
        output: names.map((name) => create(ValueInfoProtoSchema, { name })),
      });
      return create(AttributeProtoSchema, { name: `${kind}_branch`, type: AttributeProto_AttributeType.GRAPH, g: graph });
    };
    const choice = create(NodeProtoSchema, {
      name: `${last.name}/if`,
      opType: 'If',
      input: [condition],
      output: [...outputs],
      attribute: [branch('then', inside), branch('else', otherwise)],
    });
    g.nodes[g.nodes.indexOf(last)] = choice;
    g.nodes = g.nodes.filter((node) => !inside.includes(node));
  }
}

const identity = (from, to) => create(NodeProtoSchema, { name: `${to}/same`, opType: 'Identity', input: [from], output: [to] });
