import type { ClientDuplexStream } from '@grpc/grpc-js';
import type { SessionClient } from '@matfleet/device';
import type { DeviceServiceClient, SessionRequest, SessionResponse } from '@matfleet/protocol';
import { MessageLane, type MessageFaults } from '../network/message-faults.js';

/** Sees what is on the wire: outgoing messages after the faults, incoming ones before them. */
export interface SessionTap {
  sent(message: SessionRequest, epoch: number): void;
  received(message: SessionResponse, epoch: number): void;
  opened(epoch: number): void;
  closed(epoch: number): void;
}

type Call = ClientDuplexStream<SessionRequest, SessionResponse>;

/** The real client, with an observer and scripted faults between it and the session. Sync carries no message faults: it is one round trip. */
export function tappedClient(client: DeviceServiceClient, tap: SessionTap, faults: () => MessageFaults): SessionClient {
  return {
    close: () => client.close(),
    session: (() => tapStream(client.session(), tap, faults)) as DeviceServiceClient['session'],
    sync: ((request, metadata, options, done) => {
      let epoch = Number(request.epoch);
      for (const message of request.messages) if (epoch > 0) tap.sent(message, epoch);
      return client.sync(request, metadata, options, (error, answer) => {
        for (const response of answer?.messages ?? []) {
          if (response.message?.$case === 'welcome') tap.opened((epoch = Number(response.message.value.epoch)));
          tap.received(response, epoch);
        }
        if (error && epoch > 0) tap.closed(epoch);
        done(error, answer);
      });
    }) as DeviceServiceClient['sync'],
  };
}

function tapStream(call: Call, tap: SessionTap, faults: () => MessageFaults): Call {
  let epoch = 0;
  const write = call.write.bind(call) as (message: SessionRequest) => boolean;
  const on = call.on.bind(call);
  const outgoing = new MessageLane<SessionRequest>((message) => {
    if (call.destroyed || call.writableEnded) return;
    if (epoch > 0) tap.sent(message, epoch);
    write(message);
  });
  let listener: ((message: SessionResponse) => void) | undefined;
  const incoming = new MessageLane<SessionResponse>((message) => listener?.(message));
  on('data', (response: SessionResponse) => {
    if (response.message?.$case === 'welcome') tap.opened((epoch = Number(response.message.value.epoch)));
    tap.received(response, epoch);
    incoming.pass(response, faults(), response.message?.$case !== 'welcome');
  });
  on('close', () => {
    if (epoch > 0) tap.closed(epoch);
  });
  call.write = ((message: SessionRequest) => {
    outgoing.pass(message, faults(), message.message?.$case !== 'hello');
    return true;
  }) as Call['write'];
  call.on = ((event: string, added: (...values: never[]) => void) => {
    if (event === 'data') listener = added as typeof listener;
    else on(event, added as never);
    return call;
  }) as Call['on'];
  return call;
}
