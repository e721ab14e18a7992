// The architecture as rules that forbid. test/boundaries.int-spec.ts proves that each kind of wrong import fails.
import nx from '@nx/eslint-plugin';
import tseslint from 'typescript-eslint';

const banned = (...names) => names;
const onlyDevice = 'scope:device';
const tracing = 'scope:tracing';

export default tseslint.config(
  { ignores: ['**/dist/**', '**/node_modules/**', '**/src/gen/**', '**/src/generated/**', '.nx/**', '.data/**', 'tools/**/*.py'] },
  {
    files: ['**/*.ts', '**/*.tsx'],
    plugins: { '@nx': nx, '@typescript-eslint': tseslint.plugin },
    languageOptions: { parser: tseslint.parser, parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      'no-console': 'off',
    },
  },
  {
    files: ['libs/**/*.ts', 'apps/**/*.ts', 'apps/**/*.tsx'],
    rules: {
      '@nx/enforce-module-boundaries': [
        'error',
        {
          enforceBuildableLibDependency: false,
          allowCircularSelfDependency: false,
          depConstraints: [
            {
              sourceTag: 'scope:model',
              onlyDependOnLibsWithTags: ['scope:model'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:protocol',
              onlyDependOnLibsWithTags: ['scope:protocol'],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:filter',
              onlyDependOnLibsWithTags: ['scope:filter'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:history',
              onlyDependOnLibsWithTags: ['scope:history'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:trust',
              onlyDependOnLibsWithTags: ['scope:trust'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: tracing,
              onlyDependOnLibsWithTags: [tracing],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:simulator',
              onlyDependOnLibsWithTags: ['scope:simulator', onlyDevice, 'scope:history', 'scope:model', 'scope:protocol'],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:inference',
              onlyDependOnLibsWithTags: ['scope:inference', 'scope:model'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq'),
            },
            {
              sourceTag: onlyDevice,
              onlyDependOnLibsWithTags: [onlyDevice, 'scope:model', 'scope:protocol', 'scope:trust', tracing],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:agent',
              onlyDependOnLibsWithTags: ['scope:agent', onlyDevice, 'scope:model', 'scope:protocol', 'scope:inference', tracing],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:control-plane',
              onlyDependOnLibsWithTags: [
                'scope:control-plane',
                'scope:filter',
                'scope:history',
                'scope:model',
                'scope:protocol',
                'scope:trust',
                tracing,
              ],
              bannedExternalImports: banned('onnxruntime-*'),
            },
            {
              sourceTag: 'scope:cli',
              onlyDependOnLibsWithTags: ['scope:cli', 'scope:history', 'scope:model', 'scope:inference', 'scope:trust'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:harness',
              onlyDependOnLibsWithTags: ['scope:harness', 'scope:model', 'scope:protocol'],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:demo',
              onlyDependOnLibsWithTags: ['scope:demo', 'scope:harness', 'scope:history'],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:faults',
              onlyDependOnLibsWithTags: ['scope:harness', 'scope:history', 'scope:model', 'scope:protocol'],
              bannedExternalImports: banned('@nestjs/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
            {
              sourceTag: 'scope:console',
              onlyDependOnLibsWithTags: ['scope:console'],
              bannedExternalImports: banned('@nestjs/*', '@grpc/*', '@prisma/*', 'bullmq', 'onnxruntime-*'),
            },
          ],
        },
      ],
    },
  },
  only('onnxruntime-node', ['libs/inference/src/**/*.ts'], ['libs/inference/src/onnx.ts'], 'onnxruntime enters in libs/inference/src/onnx.ts alone'),
  {
    files: ['apps/**/*.ts', 'libs/**/*.ts'],
    ignores: ['libs/tracing/**', '**/*.int-spec.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        { selector: 'ImportDeclaration[source.value=/^@opentelemetry/]', message: 'OpenTelemetry enters in libs/tracing alone' },
      ],
    },
  },
  // Specs may use test/support, which belongs to no project.
  { files: ['**/*.int-spec.ts'], rules: { '@nx/enforce-module-boundaries': 'off' } },
  only(
    '@matfleet/inference',
    ['apps/agent/src/**/*.ts'],
    ['apps/agent/src/engine/{engine,prepare}-process.ts', '**/*.int-spec.ts'],
    'the agent runs the engine in child processes: only engine/engine-process.ts and engine/prepare-process.ts import it',
  ),
  {
    files: ['apps/control-plane/src/**/*.ts'],
    ignores: [
      '**/*.spec.ts',
      '**/*.int-spec.ts',
      '**/*.repository.ts',
      'apps/control-plane/src/database/**',
      'apps/control-plane/src/queue/**',
      '**/*.processor.ts',
      'apps/control-plane/src/gateway/**',
      // The join token's text form is part of the contract; nothing of protobuf or gRPC is in it.
      'apps/control-plane/src/identity/join-token.service.ts',
    ],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { regex: '^(@prisma/|.*/generated/prisma)', message: 'Prisma enters in *.repository.ts and database/ alone' },
            { regex: '^(bullmq|@nestjs/bullmq)', message: 'BullMQ enters in queue/ and *.processor.ts alone' },
            { regex: '^(@matfleet/protocol|@grpc/)', message: 'protobuf and gRPC enter in gateway/ alone' },
          ],
        },
      ],
    },
  },
  {
    files: ['apps/control-plane/src/domain/**/*.ts', 'libs/model/src/**/*.ts'],
    ignores: ['**/*.spec.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: [{ regex: '^(?!\\./|@matfleet/model$|zod$|node:crypto$)', message: 'pure code imports only its siblings, libs/model and zod' }] },
      ],
      'no-restricted-globals': ['error', 'Date', 'process', 'setTimeout', 'setInterval', 'fetch'],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: 'randomness arrives as an argument' }],
    },
  },
  {
    files: ['libs/*/src/**/*.ts', 'apps/*/src/**/*.ts'],
    ignores: ['**/*.spec.ts', '**/*.int-spec.ts', '**/testing/**', 'test/faults/**'],
    rules: {
      '@typescript-eslint/no-restricted-imports': [
        'error',
        { patterns: [{ regex: '(/testing$|/testing/|^fast-check$|^@jest/)', message: 'test code stays out of production code' }] },
      ],
    },
  },
);

/** A vendor's or a library's one door: banned in `files` except in `doors`. */
function only(name, files, doors, message) {
  return {
    files,
    ignores: [...doors, '**/*.spec.ts', '**/*.int-spec.ts'],
    rules: { 'no-restricted-imports': ['error', { paths: [{ name, message }] }] },
  };
}
