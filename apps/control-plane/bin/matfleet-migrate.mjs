#!/usr/bin/env node
import '../dist/migrate-schema.js';
