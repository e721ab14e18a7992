/** The GraphQL that this page speaks; each selection matches its type in api-types.ts. */

const device = `
  id name labels { key value } standing standingReason presence lastSeenAt phase phaseError fetchedBytes totalBytes latencyCorrection
  capabilities {
    architecture platform cores totalMemoryBytes availableMemoryBytes modelMemoryBytes memoryBandwidthBytesPerSecond executionProviders
  }
  condition { memoryFullPercent power batteryPercent temperatureCelsius throttlesAtCelsius roundTripMs }
  desired { generation modelVersionId modelName sliceId reason }
  observed { generation modelVersionId sliceId }
  latency { ttftMs { p50 p95 } interTokenMs { p50 p95 } tokensPerSecond samples }
`;

const rollout = `
  id name modelVersionId state reason devices createdAt finishedAt
  counts { state devices } holds { why devices }
  waves { wave name state reason devices counts { state devices } gates { gate verdict reason } }
`;

const inference = `
  id state answer error modelVersionId sliceId deviceId createdAt finishedAt
  attempts {
    ordinal deviceId deviceName modelVersionId sliceId state reason error ttftMs outputTokens startedAt finishedAt
  }
`;

export const devicesQuery = `query { devices { ${device} } }`;
export const deviceChanged = `subscription { deviceChanged { ${device} } }`;

const timelineEntry = `id at kind summary`;
export const timelineQuery = `query ($id: ID!, $before: Float) { deviceTimeline(deviceId: $id, before: $before, limit: 50) { entries { ${timelineEntry} } next } }`;
export const timelineGrew = `subscription ($id: ID!) { deviceTimelineGrew(deviceId: $id) { ${timelineEntry} } }`;

export const rolloutsQuery = `query { rollouts { ${rollout} } }`;
export const rolloutChanged = `subscription { rolloutChanged { ${rollout} } }`;

export const inferenceQuery = `query ($id: ID!) { inference(id: $id) { ${inference} } }`;
export const inferenceChanged = `subscription ($id: ID!) { inferenceChanged(id: $id) { ${inference} } }`;
