import { timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';

export interface GuardPolicy {
  /** Wanted as `Authorization: Bearer …` where set. */
  readonly token?: string | undefined;
  /** Names beside localhost by which callers may address the agent. */
  readonly hosts: readonly string[];
}

export interface Caller {
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
  readonly authorization?: string | undefined;
}

export type Verdict = { readonly status: 401 | 403 | 421; readonly message: string } | 'pass';

/**
 * A web page must not reach the agent through its visitor's browser: a name that an attacker's DNS points here shows in `Host`, a page of another site
 * shows in `Origin`. Addresses and localhost cannot be rebound.
 */
export function guard({ host, origin, authorization }: Caller, { token, hosts }: GuardPolicy): Verdict {
  if (!host || !isKnown(hostname(`http://${host}`), hosts))
    return { status: 421, message: `this agent does not answer for host ${JSON.stringify(host ?? '')}; name it with --http-host` };
  if (origin !== undefined && !isKnown(hostname(origin), hosts))
    return { status: 403, message: `a page of ${JSON.stringify(origin)} may not call this agent; name its host with --http-host` };
  if (token !== undefined && !sameSecret(authorization, `Bearer ${token}`)) return { status: 401, message: 'a bearer token is needed' };
  return 'pass';
}

/** Only this device can reach such an address. */
export const isLoopback = (address: string): boolean => address === 'localhost' || address === '::1' || /^127\./.test(address);

const hostname = (url: string): string | undefined => (URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : undefined);

const isKnown = (name: string | undefined, hosts: readonly string[]): boolean =>
  name !== undefined &&
  (name === 'localhost' || name.endsWith('.localhost') || isIP(name) !== 0 || hosts.some((host) => host.toLowerCase() === name));

function sameSecret(given: string | undefined, wanted: string): boolean {
  const [a, b] = [Buffer.from(given ?? ''), Buffer.from(wanted)];
  return a.length === b.length && timingSafeEqual(a, b);
}
