import { Injectable } from '@nestjs/common';
import { footprint, qualityOf, tokenizerOf, type Manifest, type Slice } from '@matfleet/model';
import { CatalogService } from '../catalog/catalog.service.js';
import { predictInterTokenMs } from '../domain/latency-model.js';
import type { RoutableDevice } from '../domain/routing.js';
import type { DeviceView, Observed } from '../fleet/device.js';
import { DeviceLinks, type DeviceLink } from '../fleet/device-links.js';
import { DeviceViews } from '../fleet/device-views.js';
import { Elsewhere } from '../fleet/elsewhere.js';
import { Leases } from '../fleet/leases.js';
import { AttemptHub } from './attempt-hub.js';
import { Breakers } from './breakers.js';

/** Time to the first token of a short prompt, in tokens, for a device that has not measured its own. */
const FIRST_TOKEN_TOKENS = 10;
/** Enough for a prediction of what a device has not measured. */
const PREDICTION_CONTEXT_TOKENS = 256;

/** A device as the router sees it, and the way to it. */
export interface ReachableDevice extends RoutableDevice {
  readonly link: DeviceLink | undefined;
  /** Equal ones give the same tokens the same text. */
  readonly vocabulary: string;
  readonly vocabSize: number;
  /** Its label `site`. */
  readonly site: string | null;
}

/** The fleet as the router sees it: what this process knows of its own devices and what the others told. */
@Injectable()
export class ReachableDevices {
  constructor(
    private readonly views: DeviceViews,
    private readonly leases: Leases,
    private readonly elsewhere: Elsewhere,
    private readonly catalog: CatalogService,
    private readonly links: DeviceLinks,
    private readonly attempts: AttemptHub,
    private readonly breakers: Breakers,
  ) {}

  /** Qualities are those for `task`. */
  async list(task: string | null): Promise<ReachableDevice[]> {
    const devices: ReachableDevice[] = [];
    const elsewhere = await this.elsewhere.read();
    for (const device of await this.views.routable()) {
      const here = this.links.get(device.id);
      const far = here ? undefined : elsewhere.get(device.id);
      const live = far ? undefined : this.leases.state(device.id);
      // Under pressure a smaller slice answers than the one that runs.
      const answers = device.observed && { ...device.observed, sliceId: live?.effective?.sliceId ?? device.observed.sliceId };
      const running = answers && (await this.whatRuns(answers));
      const interTokenMs = device.latency?.interTokenMs.p50 || (running ? predictedMs(running, device) : 0);
      devices.push({
        deviceId: device.id,
        name: device.name,
        link: here ?? (far && this.links.via?.(device.id, far.epoch, far.address)),
        presence: here || far ? device.presence : device.presence === 'online' ? 'suspect' : device.presence,
        epoch: far?.epoch ?? live?.epoch ?? 0n,
        active:
          running && answers
            ? { ...answers, sliceName: running.slice.name, quality: qualityOf(running.slice, task ?? undefined)?.value ?? null }
            : null,
        // Another replica does not tell; a device that is not ready refuses, and the next one is asked.
        engineReady: far ? device.observed !== null : (live?.engineReady ?? false),
        queued: Math.max(live?.queued ?? 0, this.attempts.runningOn(device.id)),
        ttftMs: device.latency?.ttftMs.p50 || FIRST_TOKEN_TOKENS * interTokenMs,
        interTokenMs,
        breakerOpenUntilMs: answers ? this.breakers.closedToWorkUntilMs({ deviceId: device.id, ...answers }) : 0,
        site: device.labels['site'] ?? null,
        vocabulary: running ? vocabulary(running.manifest, answers!.modelVersionId) : '',
        vocabSize: running?.manifest.config.vocabSize ?? 0,
      });
    }
    return devices;
  }

  /** Null for a version that the catalog does not know. */
  async vocabularyOf(modelVersionId: string): Promise<string | null> {
    const manifest = await this.catalog.findManifest(modelVersionId);
    return manifest ? vocabulary(manifest, modelVersionId) : null;
  }

  /** The manifest and slice that a device runs; null when the catalog no longer knows them. */
  private async whatRuns(observed: Observed): Promise<Running | null> {
    const manifest = await this.catalog.findManifest(observed.modelVersionId);
    const slice = manifest?.slices.find((one) => one.id === observed.sliceId);
    return manifest && slice ? { manifest, slice } : null;
  }
}

interface Running {
  readonly manifest: Manifest;
  readonly slice: Slice;
}

/** By the same model that chose the slice, corrected by what was learned of the device. */
function predictedMs({ manifest, slice }: Running, device: DeviceView): number {
  const { bytesPerToken } = footprint(manifest, slice, Math.min(PREDICTION_CONTEXT_TOKENS, manifest.config.maxPositionEmbeddings));
  return (
    predictInterTokenMs({ bytesPerToken, layers: slice.ffn.length }, device.capabilities?.memoryBandwidthBytesPerSecond ?? 0) *
    device.latencyCorrection
  );
}

const vocabulary = (manifest: Manifest, modelVersionId: string): string => tokenizerOf(manifest)?.id ?? modelVersionId;
