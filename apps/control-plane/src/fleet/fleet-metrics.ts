import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Subscription } from 'rxjs';
import { countsUpTo, type Histogram } from '@matfleet/model';
import { inSystem } from '../database/scope.js';
import { Metrics } from '../telemetry.js';
import { FleetService } from './fleet.service.js';
import { Latency } from './latency.js';
import { Leases } from './leases.js';

/** Upper ends of the buckets in milliseconds: 1 ms to 65 s. Powers of two, where devices' histograms have a bucket's end too. */
const BOUNDS_MS = Array.from({ length: 17 }, (_, power) => 2 ** power);

/** The fleet in Prometheus: who is here, and how fast all of it answers. No label grows with the fleet. */
@Injectable()
export class FleetMetrics implements OnModuleInit, OnModuleDestroy {
  private readonly firstToken: LatencyCounters;
  private readonly interToken: LatencyCounters;
  private readonly tokens: Counter;
  private readonly failed: Counter;
  private windows: Subscription | undefined;

  constructor(
    fleet: FleetService,
    leases: Leases,
    private readonly latency: Latency,
    metrics: Metrics,
  ) {
    const registers = [metrics.registry];
    new Gauge({
      name: 'matfleet_devices',
      help: 'Devices of the fleet by presence.',
      labelNames: ['presence'],
      registers,
      async collect() {
        const { online, suspect } = inSystem(() => leases.present());
        this.set({ presence: 'online' }, online.length);
        this.set({ presence: 'suspect' }, suspect.length);
        this.set({ presence: 'offline' }, (await inSystem(() => fleet.count())) - online.length - suspect.length);
      },
    });
    new Gauge({
      name: 'matfleet_lease_brake',
      help: '1 while no lease expires because so many ran out at once that the fault is more likely ours.',
      registers,
      collect() {
        this.set(leases.isBraked ? 1 : 0);
      },
    });
    this.firstToken = new LatencyCounters('matfleet_first_token_seconds', 'Time to the first token on devices', metrics.registry);
    this.interToken = new LatencyCounters('matfleet_inter_token_seconds', 'Time between two tokens on devices', metrics.registry);
    this.tokens = new Counter({ name: 'matfleet_output_tokens_total', help: 'Tokens that devices have generated.', registers });
    this.failed = new Counter({ name: 'matfleet_device_inferences_failed_total', help: 'Inferences that failed on devices.', registers });
  }

  onModuleInit(): void {
    this.windows = this.latency.closed.subscribe((window) => {
      this.firstToken.add(window.ttft);
      this.interToken.add(window.interToken);
      this.tokens.inc(window.outputTokens);
      this.failed.inc(window.failed);
    });
  }

  onModuleDestroy(): void {
    this.windows?.unsubscribe();
  }
}

/**
 * A Prometheus histogram out of devices' exponential ones. Its three series are counters, because prom-client's Histogram takes one value a
 * call and a window holds thousands.
 */
class LatencyCounters {
  private readonly buckets: Counter<'le'>;
  private readonly sum: Counter;
  private readonly count: Counter;

  constructor(name: string, what: string, registry: Registry) {
    const registers = [registry];
    this.buckets = new Counter({ name: `${name}_bucket`, help: `${what}, up to this many seconds.`, labelNames: ['le'], registers });
    this.sum = new Counter({ name: `${name}_sum`, help: `${what}, added.`, registers });
    this.count = new Counter({ name: `${name}_count`, help: `${what}, how many.`, registers });
  }

  add(milliseconds: Histogram): void {
    countsUpTo(milliseconds, BOUNDS_MS).forEach((count, i) => this.buckets.inc({ le: String(BOUNDS_MS[i]! / 1_000) }, count));
    this.buckets.inc({ le: '+Inf' }, milliseconds.count);
    this.sum.inc(milliseconds.sum / 1_000);
    this.count.inc(milliseconds.count);
  }
}
