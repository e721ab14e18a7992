# The control plane with its console. Build from the repository's root:
#   docker build -f deploy/control-plane.Dockerfile -t matfleet/control-plane .
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
RUN NX_DAEMON=false npx nx run-many -t build -p @matfleet/control-plane,@matfleet/console

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /src
COPY --from=manifests /manifests ./
RUN npm ci --omit=dev --no-audit --no-fund -w @matfleet/control-plane --include-workspace-root=false

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="matfleet control plane" org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /opt/matfleet
COPY --from=dependencies /src ./
COPY --from=build /src/libs/filter/dist libs/filter/dist
COPY --from=build /src/libs/history/dist libs/history/dist
COPY --from=build /src/libs/model/dist libs/model/dist
COPY --from=build /src/libs/protocol/dist libs/protocol/dist
COPY --from=build /src/libs/tracing/dist libs/tracing/dist
COPY --from=build /src/libs/trust/dist libs/trust/dist
COPY --from=build /src/apps/control-plane/dist apps/control-plane/dist
COPY --from=build /src/apps/console/dist apps/console/dist
COPY apps/control-plane/bin apps/control-plane/bin
COPY prisma prisma
COPY deploy/with-secrets.sh /usr/local/bin/with-secrets
# Certificates, the first API key and published chunks live here; without DATABASE_URL the embedded PostgreSQL does too.
RUN install -d -o node -g node -m 0700 /var/lib/matfleet
ENV NODE_ENV=production MATFLEET_DATA_DIR=/var/lib/matfleet
VOLUME /var/lib/matfleet
USER node
EXPOSE 7080 7443
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:7080/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["with-secrets", "node"]
CMD ["apps/control-plane/bin/matfleet-control-plane.mjs"]
