import { describe, expect, it } from '@jest/globals';
import { isOpen, isSameOrigin } from './gate.js';

describe('isOpen', () => {
  it.each([
    ['GET', '/api/v1/devices'],
    ['POST', '/graphql'],
    ['GET', '/graphql'],
    ['GET', '/metrics'],
    ['DELETE', '/api/v1/session'],
    ['GET', '/api/v1/session'],
    ['GET', '/api/anything-new'],
  ])('keeps %s %s closed', (method, route) => expect(isOpen(method, route)).toBe(false));

  it.each([
    ['GET', '/'],
    ['GET', '/assets/index-1a2b.js'],
    ['GET', '/healthz'],
    ['GET', '/readyz'],
    ['POST', '/api/v1/session'],
    ['GET', '/api/openapi.json'],
    ['GET', '/api/docs'],
  ])('opens %s %s', (method, route) => expect(isOpen(method, route)).toBe(true));
});

describe('isSameOrigin', () => {
  it('compares host and port', () => {
    expect(isSameOrigin({ origin: 'http://127.0.0.1:7080', host: '127.0.0.1:7080' })).toBe(true);
    expect(isSameOrigin({ origin: 'http://127.0.0.1:7081', host: '127.0.0.1:7080' })).toBe(false);
    expect(isSameOrigin({ origin: 'https://evil.example', host: 'fleet.example' })).toBe(false);
  });

  it('refuses a request that names no origin, or a private one', () => {
    expect(isSameOrigin({ host: 'fleet.example' })).toBe(false);
    expect(isSameOrigin({ origin: 'null', host: 'fleet.example' })).toBe(false);
  });
});
