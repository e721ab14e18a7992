import { ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import type { Identity } from './enrol.js';

/** Keepalive beneath NAT timeouts; messages bounded; reconnecting is the session's business, so the channel only does it quickly. */
export const channelOptions: ChannelOptions = {
  'grpc.keepalive_time_ms': 25_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.max_receive_message_length': 64 * 2 ** 20,
  'grpc.enable_channelz': 0,
  'grpc.enable_retries': 0,
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 5_000,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
};

export const deviceCredentials = (identity: Identity): ChannelCredentials =>
  ChannelCredentials.createSsl(Buffer.from(identity.caPem), Buffer.from(identity.keyPem), Buffer.from(identity.certificatePem));

/** `https://host:7443` → `host:7443`. */
export function targetOf(joinUrl: string): string {
  const url = new URL(joinUrl);
  if (url.protocol !== 'https:') throw new Error(`${joinUrl}: devices join over https, not ${url.protocol.slice(0, -1)}`);
  return `${url.hostname}:${url.port === '' ? '443' : url.port}`;
}
