// How far down a coarse scan of nano's vocabulary the token lies that the whole head chooses: so many candidates a two-stage head would have to
// score exactly to answer as before.
import { openEngine } from '@matfleet/inference';
import { Decoder } from '../../libs/inference/dist/decoder.js';
import { dequantize, quantize } from '../../libs/inference/dist/quantize.js';
import { CONTEXT_TOKENS, MAX_TOKENS, NANO, readExamples, readSlices, withPackage } from './nano-model.mjs';

const COARSE_BITS = 2;
const COARSE_BLOCK = 32;

/** Per coarse scan: its place of the right token, over every token of the answers to `limit` commands. */
export async function headCandidates(limit) {
  const { slices } = await readSlices(NANO);
  const slice = slices.at(-1);
  const { examples } = await readExamples(NANO, 'heldout', limit);
  return withPackage({ model: NANO, precision: 'fp32', slices: [slice] }, async ({ manifest, dir }) => {
    const { hiddenSize: D, vocabSize: V, finalLogitSoftcapping: cap } = manifest.config;
    const engine = await openEngine({ manifest, storeDir: dir, sliceId: slice.id, contextTokens: CONTEXT_TOKENS });
    const decoder = await Decoder.open(manifest, dir, slice);
    const table = (await decoder.tables.tokens.read(Array.from({ length: V }, (_, id) => id))).map((value) => value / Math.sqrt(D)); // (V, D)
    const gram = Array.from({ length: D }, (_, i) => Float64Array.from({ length: D }, (_, j) => sum(V, (v) => table[v * D + i] * table[v * D + j])));
    const { vectors, values } = eigen(gram);
    const scans = [
      ...[4, 2].map((part) => [`rank ${D / part} of ${D}`, ofRank(table, vectors, V, D, D / part)]),
      [`${COARSE_BITS} bits, block ${COARSE_BLOCK}`, inBits(table, V, D)],
    ].map(([name, coarse]) => ({ name, coarse, places: [] }));
    for (const { text } of examples) {
      const promptIds = engine.tokenize([{ role: 'user', text }]);
      const ids = [...promptIds];
      for await (const { tokenId } of engine.generate(promptIds, { maxTokens: MAX_TOKENS })) ids.push(tokenId);
      const wanted = ids.length - promptIds.length;
      const rows = await decoder.forward(ids.slice(0, -1), decoder.newCache(CONTEXT_TOKENS, CONTEXT_TOKENS), wanted);
      for (const row of rows) {
        const raw = Float64Array.from(row, (value) => cap * Math.atanh(value / cap)); // E · z
        // z, back from its logits: E has full rank.
        const seen = Float64Array.from({ length: D }, (_, i) => sum(V, (v) => table[v * D + i] * raw[v]));
        const turned = vectors.map((vector, k) => sum(D, (i) => vector[i] * seen[i]) / values[k]);
        const z = Float64Array.from({ length: D }, (_, i) => sum(D, (k) => vectors[k][i] * turned[k]));
        const right = raw.reduce((best, value, v) => (value > raw[best] ? v : best), 0);
        for (const { coarse, places } of scans) {
          const score = (v) => sum(D, (i) => coarse[v * D + i] * z[i]);
          const own = score(right);
          places.push(1 + sum(V, (v) => (score(v) > own ? 1 : 0)));
        }
      }
    }
    await decoder.close();
    await engine.close();
    return scans.map(({ name, places }) => ({ name, vocabulary: V, tokens: places.length, places: places.sort((a, b) => a - b) }));
  });
}

const sum = (count, term) => {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
};

/** The closest matrix of that rank: what lies along the first eigenvectors of EᵀE. */
function ofRank(table, vectors, V, D, rank) {
  const out = new Float32Array(V * D);
  for (let v = 0; v < V; v++)
    for (const vector of vectors.slice(0, rank)) {
      const along = sum(D, (i) => table[v * D + i] * vector[i]);
      for (let i = 0; i < D; i++) out[v * D + i] += along * vector[i];
    }
  return out;
}

/** Codes of 4 bits, of which the upper two are kept, the lower two replaced by their middle. */
function inBits(table, V, D) {
  const fine = quantize(table, V, D, 4, COARSE_BLOCK);
  const exact = dequantize(fine, V, D, 4, COARSE_BLOCK);
  return exact.map((value, at) => {
    const scale = fine.scales[Math.floor(at / COARSE_BLOCK)];
    const code = Math.round(value / scale) + 8;
    return (4 * (code >> (4 - COARSE_BITS)) + 1.5 - 8) * scale;
  });
}

/** Eigenvectors of a symmetric matrix by Jacobi's rotations, largest eigenvalue first. */
function eigen(matrix) {
  const n = matrix.length;
  const vectors = Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 12; sweep++)
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(matrix[p][q]) < 1e-14) continue;
        const angle = Math.atan2(2 * matrix[p][q], matrix[q][q] - matrix[p][p]) / 2;
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        for (let i = 0; i < n; i++) [matrix[i][p], matrix[i][q]] = [c * matrix[i][p] - s * matrix[i][q], s * matrix[i][p] + c * matrix[i][q]];
        for (let i = 0; i < n; i++) [matrix[p][i], matrix[q][i]] = [c * matrix[p][i] - s * matrix[q][i], s * matrix[p][i] + c * matrix[q][i]];
        for (let i = 0; i < n; i++) [vectors[p][i], vectors[q][i]] = [c * vectors[p][i] - s * vectors[q][i], s * vectors[p][i] + c * vectors[q][i]];
      }
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => matrix[b][b] - matrix[a][a]);
  return { vectors: order.map((i) => vectors[i]), values: order.map((i) => matrix[i][i]) };
}
