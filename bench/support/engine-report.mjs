// What `bench engine` says of its measurements.
import { table } from './markdown.mjs';

const mb = (bytes) => (bytes / 1e6).toFixed(0);
const right = (...headings) => headings.map((heading) => [heading, 'right']);

function heading(report, what) {
  const { shape, precision, threads, cpu, cores, onnxRuntime, date, loadBefore, provider, accelerator } = report;
  const on = provider ? `${provider}${accelerator ? ` on ${accelerator}` : ''}, ` : '';
  return `${shape}, ${what}${precision.kind} block ${precision.block}, ${on}${threads} threads, ${cpu}, ${cores} cores, ONNX Runtime ${onnxRuntime}, ${date}, load average before ${loadBefore.toFixed(1)}`;
}

const diskLines = ({ prepared, packageBytes, deviceBytes, diskRatio }) =>
  prepared
    ? [
        `- disk: the slice's chunks ${mb(packageBytes)} MB, prepared ${mb(prepared.bytes)} MB${prepared.made ? ` in ${(prepared.ms / 1000).toFixed(1)} s` : ', before'}; the device holds ${mb(deviceBytes)} MB, ${diskRatio.toFixed(2)} times the package`,
      ]
    : [];

export function renderReport(report) {
  const withPeer = report.lengths.some((row) => row.decodeRatio !== undefined);
  return [
    heading(report, `slice ${report.slice}, `),
    '',
    table(
      right(
        'prompt',
        'prefill tokens/s',
        'decode tokens/s',
        'MB read per token',
        'of the roofline',
        ...(withPeer ? ['peer prefill', 'peer decode', 'prefill ratio', 'decode ratio'] : []),
      ),
      report.lengths.map((row) => [
        row.promptTokens,
        row.prefillTokensPerSecond.toFixed(1),
        row.decodeTokensPerSecond.toFixed(2),
        mb(row.bytesReadPerToken),
        // The roofline is the host's memory.
        report.provider ? '–' : `${(100 * row.rooflineShare).toFixed(0)} %`,
        ...(withPeer
          ? [
              row.peerPrefillTokensPerSecond.toFixed(1),
              row.peerDecodeTokensPerSecond.toFixed(2),
              `${row.prefillRatio.toFixed(2)}x`,
              `${row.decodeRatio.toFixed(2)}x`,
            ]
          : []),
      ]),
    ),
    '',
    `- load ${report.loadMs.toFixed(0)} ms; first token after a 32-token prompt ${report.firstTokenMs.toFixed(0)} ms; memory bandwidth ${(report.bandwidthBytesPerSecond / 1e9).toFixed(1)} GB/s`,
    `- MB after the run: ${memoryWords(report)}; peak ${mb(report.peakRssBytes)}; after loading: private ${mb(report.afterLoad.privateBytes)}`,
    ...acceleratorLines(report),
    ...diskLines(report),
    ...groupLines(report),
    ...switchLines(report),
  ].join('\n');
}

const acceleratorLines = ({ provider, acceleratorBytes, repeats }) =>
  provider
    ? [
        `- the accelerator holds ${mb(acceleratorBytes)} MB of weights, keys and values beside them, nothing of the per-layer embeddings; runs: ${repeats}`,
      ]
    : [];

const memoryWords = ({ rssBytes, privateBytes, fileBytes, pssBytes }) =>
  `resident ${mb(rssBytes)}, private ${mb(privateBytes)}, mapped ${mb(fileBytes)}, PSS ${mb(pssBytes)}`;

const groupLines = ({ memoryGroup }) =>
  memoryGroup
    ? [
        `- answered under a memory limit of ${mb(memoryGroup.limitBytes)} MB (cgroup version ${memoryGroup.version}); before the run ${mb(memoryGroup.pageCacheBeforeBytes)} MB of the package were in the page cache; the group's peak, its page cache included, ${mb(memoryGroup.peakBytes)} MB; killed for memory: ${memoryGroup.kills}`,
      ]
    : [];

function switchLines({ switched, switchMs, switching }) {
  if (!switched) return [];
  const { tokens, loads, fileBytesPerToken, fileBytesPerTokenAlone, majorFaults, rssGrowthBytes, addressGrowthBytes } = switching;
  const kb = (bytes) => (bytes / 1e3).toFixed(1);
  return [
    ...switched.map(
      (row) =>
        `- ${row.id}: ${row.aloneMs.toFixed(1)} ms per token alone, ${row.switchedMs.toFixed(1)} ms where the slice changes at every token (${row.tokens} tokens)`,
    ),
    `- a switch costs ${switchMs.toFixed(1)} ms (median over the slices). In these ${tokens} tokens: ${loads} slices loaded, ${majorFaults} pages from disk, ${kb(fileBytesPerToken)} KB of files read per token (rows of the embeddings; alone ${kb(fileBytesPerTokenAlone)}), resident memory ${kb(rssGrowthBytes)} KB more, mapped addresses ${kb(addressGrowthBytes)} KB more`,
    `- MB after switching: ${memoryWords(switching)}; peak ${mb(switching.peakRssBytes)}`,
  ];
}

export function renderSlices(report) {
  return [
    heading(report, ''),
    '',
    `Each slice in a process of its own, with what was prepared for the largest; ${report.repeats === 1 ? 'one run each' : `medians of ${report.repeats}`}. MB:`,
    '',
    table(
      [
        ['slice', 'left'],
        ...right(
          'layers',
          'download',
          'read per token',
          'prompt',
          'prefill tokens/s',
          'decode tokens/s',
          'of the roofline',
          'resident',
          'private',
          'mapped',
          'PSS',
          'open ms',
        ),
      ],
      report.slices.flatMap((one) =>
        one.lengths.map((row) => [
          one.slice,
          one.layers,
          mb(one.downloadBytes),
          mb(row.bytesReadPerToken),
          row.promptTokens,
          row.prefillTokensPerSecond.toFixed(1),
          row.decodeTokensPerSecond.toFixed(2),
          `${(100 * row.rooflineShare).toFixed(0)} %`,
          ...[one.rssBytes, one.privateBytes, one.fileBytes, one.pssBytes].map(mb),
          one.loadMs.toFixed(0),
        ]),
      ),
    ),
    '',
    `- memory bandwidth ${(report.bandwidthBytesPerSecond / 1e9).toFixed(1)} GB/s`,
    ...diskLines(report),
  ].join('\n');
}
