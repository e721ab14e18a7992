export * from './audit-chain.js';
export * from './check.js';
export * from './event.js';
export * from './history-file.js';
