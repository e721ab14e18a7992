import { describe, expect, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { joinCommand } from './join-command.js';

describe('join command', () => {
  it('is one command of plain words', () => {
    expect(joinCommand({ deviceUrl: 'https://fleet:7443', token: 'mf1.ab_-.cd', name: 'kiosk', memory: '2MiB' })).toBe(
      'matfleet-agent \\\n  --join https://fleet:7443 \\\n  --token mf1.ab_-.cd \\\n  --name kiosk \\\n  --model-memory 2MiB',
    );
  });

  it('survives a shell whatever the name holds', () => {
    const name = `it's $(reboot) "now"; \\`;
    const command = joinCommand({ deviceUrl: 'https://fleet:7443', token: 't', name, memory: '2MiB' });
    const words = execFileSync(
      '/bin/sh',
      ['-c', `matfleet_agent() { printf '%s\\n' "$@"; }; ${command.replace('matfleet-agent', 'matfleet_agent')}`],
      { encoding: 'utf8' },
    );
    expect(words.trimEnd().split('\n')).toEqual(['--join', 'https://fleet:7443', '--token', 't', '--name', name, '--model-memory', '2MiB']);
  });
});
