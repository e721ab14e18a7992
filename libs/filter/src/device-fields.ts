/** What a filter may ask of a device. A field that the device did not tell is left out: a comparison with it neither holds nor fails. */
export interface FilterableDevice {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly presence: string;
  readonly phase?: string;
  readonly model?: string;
  readonly slice?: string;
  readonly architecture?: string;
  readonly platform?: string;
  readonly agentVersion?: string;
  readonly cores?: number;
  readonly memoryBytes?: number;
  readonly grantBytes?: number;
  readonly freeDiskBytes?: number;
  readonly bandwidthBytesPerSecond?: number;
  readonly cpuFeatures?: readonly string[];
  readonly executionProviders?: readonly string[];
}

export interface FieldDefinition {
  readonly type: 'string' | 'int' | 'list<string>' | 'map<string, string>';
  readonly description: string;
  readonly example: string;
  /** All there are; another one is an error. */
  readonly values?: readonly string[];
}

/** The fields of the language, with what documentation and completion show. */
export const deviceFields = {
  id: { type: 'string', description: 'Identity of the device.', example: 'id == "5f0c6f0e-8c5e-4d8e-9f6e-0c9a3c1f7a11"' },
  name: { type: 'string', description: 'Name of the device.', example: 'name.startsWith("kiosk-")' },
  labels: { type: 'map<string, string>', description: 'Labels by key.', example: 'labels.site == "berlin"' },
  presence: {
    type: 'string',
    description: 'Whether the device is here.',
    example: 'presence == "online"',
    values: ['online', 'suspect', 'offline'],
  },
  phase: {
    type: 'string',
    description: 'How far the device is with its desired document.',
    example: 'phase == "failed"',
    values: ['fetching', 'fetched', 'verifying', 'activating', 'active', 'failed'],
  },
  model: { type: 'string', description: 'Id of the model version that it runs.', example: 'model.startsWith("3fa9")' },
  slice: { type: 'string', description: 'Slice that it runs.', example: 'slice in ["s-32", "s-128"]' },
  architecture: { type: 'string', description: 'Processor architecture as Node.js names it.', example: 'architecture == "arm64"' },
  platform: { type: 'string', description: 'Operating system as Node.js names it.', example: 'platform == "linux"' },
  agentVersion: { type: 'string', description: 'Version of the agent.', example: 'agentVersion != "0.1.0"' },
  cores: { type: 'int', description: 'Processor cores.', example: 'cores >= 4' },
  memoryBytes: { type: 'int', description: 'Memory of the box.', example: 'memoryBytes >= GiB(8)' },
  grantBytes: { type: 'int', description: 'Memory granted to the model.', example: 'grantBytes < MB(900)' },
  freeDiskBytes: { type: 'int', description: 'Free disk.', example: 'freeDiskBytes > GB(20)' },
  bandwidthBytesPerSecond: { type: 'int', description: 'Measured memory bandwidth.', example: 'bandwidthBytesPerSecond > GB(10)' },
  cpuFeatures: { type: 'list<string>', description: 'Processor features.', example: '"avx2" in cpuFeatures' },
  executionProviders: { type: 'list<string>', description: 'Where models can run.', example: '"webgpu" in executionProviders' },
} as const satisfies Record<keyof FilterableDevice, FieldDefinition>;

type FieldOf<Type> = {
  [Name in keyof typeof deviceFields]: (typeof deviceFields)[Name]['type'] extends Type ? Name : never;
}[keyof typeof deviceFields];
export type TextField = FieldOf<'string'>;
export type NumberField = FieldOf<'int'>;
export type ListField = FieldOf<'list<string>'>;
