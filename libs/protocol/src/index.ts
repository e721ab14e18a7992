import { fileURLToPath } from 'node:url';

// The wire contract: generated messages and services, and the join token that both sides read.
export * from './gen/matfleet/device/v1/session.js';
export * from './gen/matfleet/artifact/v1/artifact.js';
export * from './gen/matfleet/inference/v1/inference.js';
export * from './gen/matfleet/fallback/v1/fallback.js';
export * from './gen/matfleet/replica/v1/replica.js';
export * from './join-token.js';

/** Where the .proto files lie, for tools that want the contract itself. */
export const protoDirectory = fileURLToPath(new URL('../proto', import.meta.url));
