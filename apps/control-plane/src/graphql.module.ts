import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';

/** Deeper than any query of the console; shallow enough that no query multiplies without end. */
const QUERY_DEPTH_MAX = 8;

/** `/graphql` over HTTP, and subscriptions over WebSocket (graphql-transport-ws). Who may ask is decided by the gate before it. */
export const GraphqlModule = GraphQLModule.forRoot<MercuriusDriverConfig>({
  driver: MercuriusDriver,
  autoSchemaFile: true,
  sortSchema: true,
  path: '/graphql',
  graphiql: false,
  queryDepth: QUERY_DEPTH_MAX,
  subscription: { keepAlive: 20_000, queueHighWaterMark: 64, context: (_socket: unknown, request: unknown) => ({ req: request }) },
});
