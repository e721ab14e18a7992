#!/bin/sh
# Runs a command with its secrets read from files: <NAME>_FILE, where set, becomes <NAME> with that file's content, so that
# no secret stands in a container's configuration or on a command line.
set -eu
for name in DATABASE_URL DATABASE_MIGRATION_URL REDIS_URL; do
  eval "file=\${${name}_FILE:-}"
  [ -n "$file" ] || continue
  [ -s "$file" ] || { echo "with-secrets: ${name}_FILE names $file, which is missing, empty or not readable by uid $(id -u)" >&2; exit 1; }
  value=$(cat "$file")
  export "$name=$value"
  unset "${name}_FILE"
done
exec "$@"
