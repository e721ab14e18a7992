import { randomUUID } from 'node:crypto';
import { status, type ServerWritableStream } from '@grpc/grpc-js';
import {
  Privacy,
  type AnswerRequest,
  type AnswerResponse,
  type FallbackServiceServer,
  type GenerateRequest,
  type GenerateResponse,
  type Hop,
} from '@matfleet/protocol';
import { inTenant } from '../database/scope.js';
import { NOTHING_BEGUN, type BegunAnswer } from '../domain/begun-answer.js';
import { DomainError } from '../errors.js';
import type { IdentityService } from '../identity/identity.service.js';
import type { FleetAnswers } from '../inference/fleet-answers.js';
import type { ReachableDevice, ReachableDevices } from '../inference/reachable-devices.js';
import { identify } from './device-auth.js';
import { grpcError } from './device-service.js';
import { generateResponseOf, requestOf } from './wire.js';

const LONGEST_MS = 600_000;
/** Events that may wait for a device that does not read them. */
const OUTBOUND_MAX = 10_000;
/** Answers that one device may be given at the same time. */
const AT_A_TIME = 16;
const ANSWERED_MAX = 131_072;

export interface FallbackServiceParts {
  readonly answers: FleetAnswers;
  readonly devices: ReachableDevices;
  readonly identity: IdentityService;
  readonly insecure: boolean;
  readonly report: (error: unknown) => void;
}

/** Answers of other devices of its tenant for one that cannot give them itself. Its request is kept nowhere. */
export function fallbackService(parts: FallbackServiceParts): FallbackServiceServer {
  const running = new Map<string, number>();
  return {
    answer: (call) => {
      const run = async (): Promise<void> => {
        const { deviceId, tenantId } = await identify(call, parts.identity, parts.insecure);
        const now = running.get(deviceId) ?? 0;
        if (now >= AT_A_TIME)
          throw new DomainError('resource-exhausted', `${now} answers of the fleet run for this device; the most is ${AT_A_TIME}`);
        running.set(deviceId, now + 1);
        try {
          await inTenant(tenantId, () => answer(call, deviceId, parts));
        } finally {
          const left = (running.get(deviceId) ?? 1) - 1;
          if (left > 0) running.set(deviceId, left);
          else running.delete(deviceId);
        }
      };
      run().then(
        () => call.end(),
        (error: unknown) => {
          if (call.cancelled) return;
          const refusal = grpcError(error);
          if (refusal.code === status.INTERNAL) parts.report(error);
          call.emit('error', refusal);
        },
      );
    },
  };
}

async function answer(
  call: ServerWritableStream<AnswerRequest, AnswerResponse>,
  deviceId: string,
  { answers, devices }: FallbackServiceParts,
): Promise<void> {
  const { request, remainingMs, modelVersionId, reason } = call.request;
  if (!request) throw new DomainError('invalid-argument', 'the call holds no request');
  const cancelled = new AbortController();
  call.once('cancelled', () => cancelled.abort(new Error('the device cancelled the answer')));
  /** By attempt. */
  const hops = new Map<string, Hop>();
  let started = false;
  let tail: GenerateResponse | undefined;
  const write = (response: GenerateResponse): void => {
    // A device that does not read is cut off: its answer would fill the memory.
    if (call.writableLength >= OUTBOUND_MAX) cancelled.abort(new DomainError('resource-exhausted', `${OUTBOUND_MAX} events wait to be read`));
    else call.write({ response });
  };
  const answering = answers.answer(
    {
      inferenceId: randomUUID(),
      request: requestOf(request),
      qualityFloor: request.qualityFloor ?? null,
      deadlineAtMs: Date.now() + Math.min(remainingMs, LONGEST_MS),
      begun: await begunBy(request, modelVersionId, devices),
      tried: [],
      firstOrdinal: 1,
      mayAsk: await fence(request, deviceId, devices),
      waits: false,
    },
    {
      begins: ({ id, device, sliceId, reason: why }) => {
        const because = hops.size === 0 && reason !== '' ? `${reason}; ${why}` : why;
        hops.set(id, { deviceId: device.deviceId, deviceName: device.name, sliceId, outputTokens: 0, reason: because, error: '' });
      },
      wrote: () => {},
      hears: ({ id, device }, event) => {
        const hop = hops.get(id)!;
        switch (event.kind) {
          case 'started': {
            if (started) return;
            started = true;
            const { deviceId, name } = device;
            const { event: told } = generateResponseOf(event);
            if (told?.$case === 'started') Object.assign(told.value, { deviceId, deviceName: name, requestId: request.requestId });
            return write({ event: told });
          }
          case 'delta':
            // Text that no token stands for is the end's: a device that goes on tells it again.
            if (event.tokenIds.length === 0) return void (tail = generateResponseOf(event));
            tail = undefined;
            hop.outputTokens += event.tokenIds.length;
            return write(generateResponseOf(event));
          case 'finished': {
            if (tail) write(tail);
            const { event: told } = generateResponseOf(event);
            if (told?.$case === 'finished') {
              // The one that ends the answer comes last.
              hops.delete(id);
              told.value.route = { hops: [...hops.values(), hop] };
            }
            return write({ event: told });
          }
          default:
            return;
        }
      },
      ended: ({ id }, outcome) => {
        const hop = hops.get(id);
        if (outcome.kind === 'failed' && hop) hop.error = outcome.error;
      },
    },
    cancelled.signal,
  );
  const end = await answering.catch((error: unknown) => {
    throw cancelled.signal.aborted ? cancelled.signal.reason : error;
  });
  if (end.kind === 'failed') throw new DomainError('unavailable', end.error);
}

/** What the calling device has of the answer: its tokens, which devices with the same vocabulary understand. */
async function begunBy(request: GenerateRequest, modelVersionId: string, devices: ReachableDevices): Promise<BegunAnswer> {
  const tokenIds = request.answered?.tokenIds ?? [];
  if (tokenIds.length === 0) return NOTHING_BEGUN;
  if (tokenIds.length > ANSWERED_MAX)
    throw new DomainError('invalid-argument', `the answer so far has ${tokenIds.length} tokens; the most is ${ANSWERED_MAX}`);
  const vocabulary = await devices.vocabularyOf(modelVersionId);
  if (vocabulary === null)
    throw new DomainError('invalid-argument', `the answer so far was written by model version ${modelVersionId.slice(0, 80)}, which is not here`);
  return { text: '', tokenIds, vocabulary };
}

/** Who may see the prompt: not the caller again, and no further than it says. */
async function fence({ privacy }: GenerateRequest, deviceId: string, devices: ReachableDevices): Promise<(device: ReachableDevice) => boolean> {
  switch (privacy) {
    case Privacy.PRIVACY_DEVICE:
      throw new DomainError('invalid-argument', 'the request may not leave its device');
    case Privacy.PRIVACY_SITE: {
      const site = (await devices.list(null)).find((device) => device.deviceId === deviceId)?.site ?? null;
      if (site === null) throw new DomainError('failed-precondition', 'the request may not leave its site, and its device has no label "site"');
      return (device) => device.deviceId !== deviceId && device.site === site;
    }
    default:
      return (device) => device.deviceId !== deviceId;
  }
}
