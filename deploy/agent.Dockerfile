# The agent for one edge device, with its engine. Build from the repository's root:
#   docker build -f deploy/agent.Dockerfile -t matfleet/agent .
ARG NODE_IMAGE=node:22.21.1-bookworm-slim

# Only what an install depends on, so that a change of source does not install again.
FROM ${NODE_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN mkdir /manifests && find . -name package.json -not -path '*/node_modules/*' | xargs cp --parents -t /manifests && cp package-lock.json /manifests/

FROM ${NODE_IMAGE} AS build
WORKDIR /src
# Nothing that builds needs an install script.
COPY --from=manifests /manifests ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN NX_DAEMON=false npx nx run-many -t build -p @matfleet/agent

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /src
COPY --from=manifests /manifests ./
# The engine runs on the CPU: no GPU libraries, and no runtime of another platform.
RUN npm_config_onnxruntime_node_install=skip npm ci --omit=dev --no-audit --no-fund -w @matfleet/agent --include-workspace-root=false \
  && rm -rf node_modules/onnxruntime-node/bin/napi-v*/darwin node_modules/onnxruntime-node/bin/napi-v*/win32

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="matfleet agent" org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /opt/matfleet
COPY --from=dependencies /src ./
COPY --from=build /src/libs/model/dist libs/model/dist
COPY --from=build /src/libs/protocol/dist libs/protocol/dist
COPY --from=build /src/libs/tracing/dist libs/tracing/dist
COPY --from=build /src/libs/trust/dist libs/trust/dist
COPY --from=build /src/libs/protocol/proto libs/protocol/proto
COPY --from=build /src/libs/inference/dist libs/inference/dist
COPY --from=build /src/libs/device/dist libs/device/dist
COPY --from=build /src/apps/agent/dist apps/agent/dist
COPY apps/agent/bin apps/agent/bin
COPY deploy/with-secrets.sh /usr/local/bin/with-secrets
# The device's identity, its chunks and its journal; and the directory of the socket that local applications share with it.
RUN install -d -o node -g node -m 0700 /var/lib/matfleet && install -d -o node -g node -m 0755 /run/matfleet
ENV NODE_ENV=production
VOLUME /var/lib/matfleet
USER node
# Healthy when the local inference service takes connections; offline is no illness.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "require('net').connect('/run/matfleet/agent.sock').on('connect', () => process.exit(0)).on('error', () => process.exit(1))"]
ENTRYPOINT ["with-secrets", "node", "apps/agent/bin/matfleet-agent.mjs"]
CMD ["--data", "/var/lib/matfleet", "--socket", "/run/matfleet/agent.sock"]
