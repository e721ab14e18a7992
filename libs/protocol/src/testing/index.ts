// Fakes that speak the contract over real sockets, for tests of both sides.
export * from './fake-control-plane.js';
export * from './fake-device.js';
export * from './test-ca.js';
