import { TestEnvironment } from 'jest-environment-node';

/**
 * Jest runs each spec in its own VM context with its own typed arrays, and native addons (onnxruntime) check `instanceof`
 * against the host's. Handing the host's constructors into the context makes the two agree.
 */
export default class HostTypedArrays extends TestEnvironment {
  async setup() {
    await super.setup();
    for (const name of [
      'ArrayBuffer',
      'SharedArrayBuffer',
      'DataView',
      'Float16Array',
      'Float32Array',
      'Float64Array',
      'BigInt64Array',
      'BigUint64Array',
      'Int8Array',
      'Int16Array',
      'Int32Array',
      'Uint8Array',
      'Uint8ClampedArray',
      'Uint16Array',
      'Uint32Array',
    ])
      if (globalThis[name]) this.global[name] = globalThis[name];
  }
}
