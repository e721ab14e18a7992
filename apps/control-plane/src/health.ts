import { Injectable } from '@nestjs/common';
import { PrismaService } from './database/prisma.service.js';
import { Endpoints } from './endpoints.js';

const CHECK_TIMEOUT_MS = 3_000;

export interface ReadinessReport {
  ready: boolean;
  /** By name of what was checked: `ok`, or why not. */
  checks: Record<string, string>;
}

/** What this process needs before it can serve. Features add their own checks; each has a deadline. */
@Injectable()
export class Readiness {
  private readonly checks = new Map<string, () => Promise<unknown>>();

  constructor(prisma: PrismaService, endpoints: Endpoints) {
    this.add('database', () => prisma.system.$queryRaw`SELECT 1`);
    this.add('draining', async () => {
      if (endpoints.draining) throw new Error('this process stops');
    });
    this.add('device gateway', async () => {
      if (endpoints.deviceUrl === undefined) throw new Error('the device port is not open');
    });
  }

  /** `check` rejects, with the reason, when its thing cannot serve. */
  add(name: string, check: () => Promise<unknown>): void {
    this.checks.set(name, check);
  }

  async report(): Promise<ReadinessReport> {
    const entries = await Promise.all([...this.checks].map(async ([name, check]) => [name, await outcome(check)] as const));
    return { ready: entries.every(([, text]) => text === 'ok'), checks: Object.fromEntries(entries) };
  }
}

async function outcome(check: () => Promise<unknown>): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no answer within ${CHECK_TIMEOUT_MS} ms`), CHECK_TIMEOUT_MS);
  });
  try {
    return await Promise.race([check().then(() => 'ok'), late]);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
  }
}
