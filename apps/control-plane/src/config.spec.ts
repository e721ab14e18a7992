import { describe, expect, it } from '@jest/globals';
import { ConfigError, parseConfig } from './config.js';

const problemsOf = (env: Record<string, string>): string => {
  try {
    parseConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return '';
};

describe('parseConfig', () => {
  it('needs no variable at all, and then listens on loopback with the embedded database', () => {
    const config = parseConfig({});
    expect(config).toMatchObject({ httpHost: '127.0.0.1', httpPort: 7080, devicePort: 7443, databaseUrl: undefined, redisUrl: undefined });
    expect(config.leaseMs).toBeGreaterThanOrEqual(3 * config.heartbeatMs);
  });

  it('reports every problem together, each under its variable', () => {
    const message = problemsOf({ MATFLEET_HTTP_PORT: '70000', MATFLEET_LOG_LEVEL: 'loud', DATABASE_URL: 'mysql://x' });
    expect(message).toContain('3 problems');
    for (const name of ['MATFLEET_HTTP_PORT', 'MATFLEET_LOG_LEVEL', 'DATABASE_URL']) expect(message).toContain(name);
  });

  it('refuses a lease of 10000 ms with heartbeats of 4000 ms', () => {
    expect(problemsOf({ MATFLEET_LEASE_MS: '10000', MATFLEET_HEARTBEAT_MS: '4000' })).toContain('does not cover three heartbeats of 4000 ms');
  });

  it('refuses the API beyond loopback without TLS, and takes it with a certificate or behind a proxy', () => {
    expect(problemsOf({ MATFLEET_HTTP_HOST: '0.0.0.0' })).toContain('beyond loopback');
    expect(problemsOf({ MATFLEET_HTTP_HOST: '0.0.0.0', MATFLEET_HTTP_BEHIND_PROXY: '1' })).toBe('');
    expect(problemsOf({ MATFLEET_HTTP_HOST: '::', MATFLEET_HTTP_TLS_CERT_FILE: 'a.pem', MATFLEET_HTTP_TLS_KEY_FILE: 'a.key' })).toBe('');
  });

  it('refuses an insecure device port beyond loopback', () => {
    expect(problemsOf({ MATFLEET_INSECURE_DEVICE_PORT: '1', MATFLEET_DEVICE_HOST: '0.0.0.0' })).toContain('loopback only');
    expect(parseConfig({ MATFLEET_INSECURE_DEVICE_PORT: '1' }).insecureDevicePort).toBe(true);
  });

  it('takes an empty variable for an absent one', () => {
    expect(parseConfig({ REDIS_URL: '', MATFLEET_HTTP_PORT: '' })).toMatchObject({ redisUrl: undefined, httpPort: 7080 });
  });
});
