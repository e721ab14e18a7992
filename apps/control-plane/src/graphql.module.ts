import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import { validate } from 'graphql';
import mercurius from 'mercurius';
import { LIMITS } from './graphql-limits.js';

/** Deeper than any query of the console; shallow enough that no query multiplies without end. */
const QUERY_DEPTH_MAX = 8;
/** Of one query with its variables. */
const QUERY_BYTES_MAX = 64 << 10;
/** Queries that were sent once and are then asked for by their SHA-256. */
const PERSISTED_MAX = 256;

/**
 * `/graphql` over HTTP, and subscriptions over WebSocket (graphql-transport-ws). Who may ask is decided by the gate before it. A query that
 * would be too deep, too costly or has too many aliases is refused before anything of it runs.
 */
export const GraphqlModule = GraphQLModule.forRoot<MercuriusDriverConfig>({
  driver: MercuriusDriver,
  autoSchemaFile: true,
  sortSchema: true,
  path: '/graphql',
  graphiql: false,
  queryDepth: QUERY_DEPTH_MAX,
  validationRules: [...LIMITS],
  additionalRouteOptions: { bodyLimit: QUERY_BYTES_MAX },
  persistedQueryProvider: mercurius.persistedQueryDefaults.automatic(PERSISTED_MAX),
  subscription: { keepAlive: 20_000, queueHighWaterMark: 64, context: (_socket: unknown, request: unknown) => ({ req: request }) },
  hooks: {
    // Validation rules hold for queries alone.
    preSubscriptionExecution: async (schema, document) => {
      const [error] = validate(schema, document, [...LIMITS]);
      if (error) throw error;
    },
  },
});
