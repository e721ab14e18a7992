#!/usr/bin/env bash
# The agent's HTTP APIs by hand. MATFLEET_URL: as the agent prints it when it serves.
set -euo pipefail
url=${MATFLEET_URL:-http://127.0.0.1:7481}

# What does it serve?
curl -sS --fail-with-body "$url/v1/models"
echo

# OpenAI: one answer, and who gave it.
curl -sS --fail-with-body -D - "$url/v1/chat/completions" -d '{"model": "nano", "messages": [{"role": "user", "content": "Freezer room to -22 please"}]}'
echo

# Ollama: a stream of JSON lines, held to a schema.
curl -sS --fail-with-body -N "$url/api/generate" -d '{
  "model": "nano",
  "prompt": "Switch the lights off in the barn",
  "format": {"type": "object", "properties": {"zone": {"type": "string"}, "on": {"type": "boolean"}}, "required": ["zone", "on"]}
}'
