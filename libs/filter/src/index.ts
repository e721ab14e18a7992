export * from './condition.js';
export * from './device-fields.js';
export * from './device-filter.js';
export * from './filter-error.js';
