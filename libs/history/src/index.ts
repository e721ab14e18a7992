export * from './check.js';
export * from './event.js';
export * from './history-file.js';
