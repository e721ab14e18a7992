#!/bin/sh
# Makes the secrets of compose.yaml in deploy/secrets: random passwords, and the connection strings that carry them.
# Keeps files that are there: a password that PostgreSQL was set up with must not change.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
# Containers read these as another user; the directory keeps everyone else out.
write() { [ -s "secrets/$1" ] || { printf '%s' "$2" > "secrets/$1.new" && chmod 444 "secrets/$1.new" && mv "secrets/$1.new" "secrets/$1"; }; }
write postgres_password "$(random)"
write redis_password "$(random)"
write application_password "$(random)"
write database_migration_url "postgresql://matfleet:$(cat secrets/postgres_password)@postgres:5432/matfleet"
write database_url "postgresql://matfleet_app:$(cat secrets/application_password)@postgres:5432/matfleet"
write redis_url "redis://:$(cat secrets/redis_password)@redis:6379"
echo "secrets are in $(pwd)/secrets"
