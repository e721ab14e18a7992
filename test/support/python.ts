import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { it } from '@jest/globals';

const own = resolve(import.meta.dirname, '../../.data/python/bin/python');

/** The interpreter for what is written in Python: MATFLEET_PYTHON, else the one that the gate prepares, else the machine's. */
export const python = process.env['MATFLEET_PYTHON'] ?? (existsSync(own) ? own : 'python3');

const hasGrpcio = spawnSync(python, ['-c', 'import grpc, grpc_tools'], { stdio: 'ignore' }).status === 0;

const left = (name: string, _test: () => Promise<void>): void => console.warn(`WITHOUT PYTHON: ${name}`);

/** `it` where grpcio and grpcio-tools are installed; elsewhere skipped, named and counted, or with MATFLEET_TEST_WITHOUT_PYTHON=1 only named. */
export const itWithGrpcio: (name: string, test: () => Promise<void>) => void = hasGrpcio
  ? it
  : process.env['MATFLEET_TEST_WITHOUT_PYTHON'] === '1'
    ? left
    : it.skip;
