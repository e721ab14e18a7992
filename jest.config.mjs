// One Jest run for the whole repository. A spec's suffix says what it needs: see CONTRIBUTING.md.
const swc = {
  jsc: {
    target: 'es2022',
    parser: { syntax: 'typescript', decorators: true },
    transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
    keepClassNames: true,
  },
  module: { type: 'es6' },
  sourceMaps: 'inline',
  swcrc: false,
};

export default {
  testMatch: ['<rootDir>/{libs,apps}/*/src/**/*.{spec,int-spec}.ts', '<rootDir>/test/**/*.{spec,int-spec,e2e-spec}.ts'],
  testEnvironment: '<rootDir>/test/support/node-environment.mjs',
  globalSetup: '<rootDir>/test/support/global-setup.mjs',
  globalTeardown: '<rootDir>/test/support/global-teardown.mjs',
  reporters: ['default', '<rootDir>/test/support/closing-line-reporter.mjs'],
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    '^@matfleet/protocol/testing$': '<rootDir>/libs/protocol/src/testing/index.ts',
    '^@matfleet/trust/testing$': '<rootDir>/libs/trust/src/testing.ts',
    '^@matfleet/(model|protocol|inference|device|filter|history|trust|tracing|harness)$': '<rootDir>/libs/$1/src/index.ts',
  },
  transform: { '^.+\\.ts$': ['@swc/jest', swc] },
  testTimeout: 60_000,
  maxWorkers: 2,
  workerIdleMemoryLimit: '1500MB',
  testPathIgnorePatterns: ['/node_modules/'],
  modulePathIgnorePatterns: ['<rootDir>/(libs|apps)/.*/dist/', '<rootDir>/.nx/', '<rootDir>/.data/'],
};
