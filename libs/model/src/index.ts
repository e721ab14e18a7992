export * from './model-config.js';
export * from './slice.js';
export * from './manifest.js';
export * from './frontier.js';
export * from './footprint.js';
