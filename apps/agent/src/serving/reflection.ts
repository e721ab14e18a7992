import { existsSync } from 'node:fs';
import type { Server } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { protoDirectory } from '@matfleet/protocol';

/** Lets tools such as grpcurl ask for the service's own description, where its .proto was installed with the agent. */
export function addReflection(server: Server): void {
  if (!existsSync(protoDirectory)) return;
  const definition = loadSync('matfleet/inference/v1/inference.proto', { includeDirs: [protoDirectory] });
  new ReflectionService(definition).addToServer(server);
}
