import { credentials, Metadata } from '@grpc/grpc-js';
import { InferenceServiceClient, Role, type GenerateResponse, type GetStatusResponse, type Started } from '@matfleet/protocol';

export interface LocalAnswer {
  text: string;
  deviceId: string;
  modelVersionId: string;
  sliceId: string;
  ttftMs: number;
  tokensPerSecond: number;
  outputTokens: number;
  /** Devices that worked on it. */
  hops: number;
}

export interface LocalRequest {
  prompt: string;
  maxTokens?: number;
  timeoutMs?: number;
  onText?: (text: string) => void;
}

/** A local application: it calls the agent on its own box over the Unix socket and knows nothing of the fleet. */
export class LocalApp {
  private constructor(private readonly client: InferenceServiceClient) {}

  static connect(socket: string): LocalApp {
    // Plain text: the socket's file permissions are the guard, and nothing leaves the box.
    return new LocalApp(new InferenceServiceClient(`unix:${socket}`, credentials.createInsecure(), { 'grpc.enable_channelz': 0 }));
  }

  ask({ prompt, maxTokens = 0, timeoutMs = 30_000, onText }: LocalRequest): Promise<LocalAnswer> {
    return new Promise((resolve, reject) => {
      const call = this.client.generate(
        {
          requestId: '',
          messages: [{ role: Role.ROLE_USER, parts: [{ content: { $case: 'text', value: prompt } }] }],
          sampling: undefined,
          maxTokens,
          task: '',
        },
        { deadline: Date.now() + timeoutMs },
      );
      let started: Started | undefined;
      let text = '';
      call.on('data', ({ event }: GenerateResponse) => {
        if (event?.$case === 'started') started = event.value;
        if (event?.$case === 'delta') {
          text += event.value.text;
          onText?.(event.value.text);
        }
        if (event?.$case === 'finished') {
          if (!started) return reject(new Error('the agent finished an answer that it never started'));
          const { deviceId, modelVersionId, sliceId } = started;
          const { ttftMs, tokensPerSecond, outputTokens, route } = event.value;
          resolve({ text, deviceId, modelVersionId, sliceId, ttftMs, tokensPerSecond, outputTokens, hops: Math.max(1, route?.hops.length ?? 0) });
        }
      });
      call.on('error', reject);
      call.on('end', () => reject(new Error(`the agent's stream ended before the answer did, after ${JSON.stringify(text)}`)));
    });
  }

  status(timeoutMs = 5_000): Promise<GetStatusResponse> {
    return new Promise((resolve, reject) => {
      this.client.getStatus({}, new Metadata(), { deadline: Date.now() + timeoutMs }, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  }

  close(): void {
    this.client.close();
  }
}
