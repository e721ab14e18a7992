import type { Provider } from './kernels.js';

/** A slice was to run on an execution provider that this machine lacks. The message says what is missing and how to get it. */
export class ProviderUnavailable extends Error {
  constructor(
    readonly provider: Provider,
    options: ErrorOptions,
  ) {
    const said = options.cause instanceof Error ? options.cause.message.trim().replaceAll(/\s+/g, ' ').slice(-300) : '';
    super(`the execution provider ${provider} is not available here: ${MISSING[provider]}${said ? ` (ONNX Runtime: ${said})` : ''}`, options);
    this.name = 'ProviderUnavailable';
  }
}

const MISSING: Record<Provider, string> = {
  cpu: 'ONNX Runtime did not start',
  webgpu:
    'no graphics adapter was found. On Linux it takes the Vulkan loader, libvulkan.so.1 (Debian: libvulkan1), and a Vulkan driver for the device (its vendor’s, or Debian: mesa-vulkan-drivers) that this user may open',
  cuda: 'its library does not load. It takes an NVIDIA driver, CUDA 12 and cuDNN 9, and the provider’s library, which "npm rebuild onnxruntime-node --onnxruntime-node-install=cuda12" puts beside onnxruntime-node on linux-x64',
};

/** Whether ONNX Runtime's refusal of a session is about the provider and not about the graph. */
export const isAboutProvider = (message: string): boolean =>
  /AppendExecutionProvider|backend not found|no available backend|WebGpuContext::Initialize|WebGPU adapter|WebGPU device|CUDA failure|cuDNN|Failed to load (shared )?library/i.test(
    message,
  );
