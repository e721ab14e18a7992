import { describe, expect, it } from '@jest/globals';
import { guard, isLoopback, type Caller } from './guard.js';

const verdict = (caller: Caller, over: { token?: string; hosts?: string[] } = {}) => guard(caller, { hosts: [], ...over });

describe('the guard of the HTTP API', () => {
  it('answers for localhost and addresses, with any port', () => {
    for (const host of ['localhost', 'localhost:7481', '127.0.0.1:7481', '[::1]:7481', '192.168.1.4:80', 'LOCALHOST:1'])
      expect([host, verdict({ host })]).toEqual([host, 'pass']);
  });

  it('refuses a name that somebody else may have pointed here, and a request without one', () => {
    for (const host of ['evil.example', 'evil.example:7481', 'localhost.evil.example', '127.0.0.1.evil.example', '', undefined])
      expect(verdict({ host })).toMatchObject({ status: 421 });
    expect(verdict({ host: 'kiosk.lan:7481' }, { hosts: ['Kiosk.lan'] })).toBe('pass');
  });

  it('refuses pages of other sites, and lets local pages in', () => {
    const host = '127.0.0.1:7481';
    expect(verdict({ host, origin: 'https://evil.example' })).toMatchObject({ status: 403 });
    expect(verdict({ host, origin: 'null' })).toMatchObject({ status: 403 });
    expect(verdict({ host, origin: 'http://localhost:3000' })).toBe('pass');
  });

  it('wants the whole token where one is set', () => {
    const host = 'localhost';
    for (const authorization of [undefined, '', 'Bearer', 'Bearer secre', 'Bearer secrets', 'Basic secret'])
      expect(verdict({ host, authorization }, { token: 'secret' })).toMatchObject({ status: 401 });
    expect(verdict({ host, authorization: 'Bearer secret' }, { token: 'secret' })).toBe('pass');
  });

  it('knows which addresses only this device reaches', () => {
    expect(['127.0.0.1', '127.8.0.1', '::1', 'localhost'].every(isLoopback)).toBe(true);
    expect(['0.0.0.0', '::', '10.0.0.1', '128.0.0.1'].some(isLoopback)).toBe(false);
  });
});
