export * from './model-config.js';
export * from './slice.js';
export * from './manifest.js';
export * from './slice-math.js';
export * from './package.js';
export * from './footprint.js';
export * from './frontier.js';
export * from './published-slices.js';
