import { Inject, Injectable, Logger, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Subject } from 'rxjs';
import { CONFIG, type Config } from '../config.js';
import { currentTenant, inSystem } from '../database/scope.js';
import { Leadership } from '../replicas/leadership.js';
import type { DeviceRecord, LatencySummary } from './device.js';
import { DeviceRepository } from './device.repository.js';
import { LatencyWindows, summarise, type LatencyReport, type LatencyWindow } from './latency-windows.js';

const SHOWN_MS = 15 * 60_000;
const KEPT_MS = 7 * 24 * 3_600_000;
const WINDOW_BEATS = 3;

/** How fast devices answer: the windows that are open, and those that were kept. */
@Injectable()
export class Latency implements OnModuleInit, OnModuleDestroy {
  /** Windows as they close, for whoever learns from them. */
  readonly closed = new Subject<LatencyWindow>();
  private readonly log = new Logger('fleet');
  private readonly windows: LatencyWindows;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly devices: DeviceRepository,
    private readonly leadership: Leadership,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.windows = new LatencyWindows(WINDOW_BEATS * config.heartbeatMs);
  }

  onModuleInit(): void {
    this.timer = setInterval(() => this.close(this.windows.closeDue(Date.now())), this.config.heartbeatMs);
    this.timer.unref();
    this.leadership.every(
      3_600_000,
      (fence) => this.devices.dropWindowsBefore(new Date(Date.now() - KEPT_MS), fence),
      (error) => this.log.error(error),
    );
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.timer);
    await inSystem(() => this.devices.addWindows(this.windows.closeAll()));
  }

  /** Of a device of the caller's tenant. */
  add(deviceId: string, report: LatencyReport): void {
    const closed = this.windows.add({ deviceId, tenantId: currentTenant() }, report, Date.now());
    if (closed) this.close([closed]);
  }

  /** Of each device's slice in the last quarter of an hour, by id; null without an answered inference. */
  async of(devices: readonly DeviceRecord[]): Promise<Map<string, LatencySummary | null>> {
    const windows = await this.devices.windowsSince(
      new Date(Date.now() - SHOWN_MS),
      devices.map(({ id }) => id),
    );
    return new Map(
      devices.map(({ id, observed }) => {
        const open = this.windows.openWindow(id);
        const measured = [...(open ? [open] : []), ...(windows.get(id) ?? [])].filter(
          (window) => !observed || (window.sliceId === observed.sliceId && window.modelVersionId === observed.modelVersionId),
        );
        return [id, summarise(measured)];
      }),
    );
  }

  private close(windows: LatencyWindow[]): void {
    if (windows.length === 0) return;
    void inSystem(() => this.devices.addWindows(windows)).catch((error: unknown) => this.log.error(error));
    for (const window of windows) this.closed.next(window);
  }
}
