export * from './client.js';
export * from './metadata.js';
export * from './signer.js';
export * from './signing-key.js';
