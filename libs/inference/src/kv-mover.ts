import { GraphBuilder } from './graph-builder.js';
import type { Provider } from './kernels.js';
import { createSession, int64, type Session, type Tensor } from './onnx.js';

/** Moves positions of keys or values that lie with an accelerator: what `copyWithin` does to those in the host's memory. */
export class KvMover {
  private constructor(private readonly session: Session) {}

  static async open(provider: Provider): Promise<KvMover> {
    const g = new GraphBuilder();
    const rows = g.input('rows', 'float32', [1, 'K', 'C', 'd']);
    const order = g.input('order', 'int64', ['C']);
    g.output('moved', g.op('Gather', [rows, order], { axis: 2 }), 'float32', [1, 'K', 'C', 'd']);
    return new KvMover(await createSession(g.toBytes(), { threads: 1, provider, kept: ['moved'] }));
  }

  /** (1, K, C, d) -> a new (1, K, C, d) that starts with the `count` positions from `from` on; what follows them is of no meaning. */
  async toFront(rows: Tensor, from: number, count: number): Promise<Tensor> {
    const order = Array.from({ length: rows.dims[2]! }, (_, at) => (at < count ? from + at : 0));
    const { moved } = await this.session.run({ rows, order: int64(order) });
    return moved!;
  }

  close(): Promise<void> {
    return this.session.close();
  }
}
