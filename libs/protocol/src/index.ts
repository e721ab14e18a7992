// The wire contract: generated messages and services, and the join token that both sides read.
export * from './gen/matfleet/device/v1/session.js';
export * from './gen/matfleet/artifact/v1/artifact.js';
export * from './gen/matfleet/inference/v1/inference.js';
export * from './gen/matfleet/replica/v1/replica.js';
export * from './join-token.js';
