import { closeSync, createReadStream, openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { HistoryCheck, type HistoryReport } from './check.js';
import { HistoryEvent } from './event.js';

const BUFFER_CHARACTERS = 1 << 16;
const DEFAULT_MAX_BYTES = 2 ** 30;

/** A history as JSON lines. A file that would grow beyond its bound ends the run by throwing: a history with holes proves nothing. */
export class HistoryFile {
  private readonly file: number;
  private buffer = '';
  private bytes = 0;

  constructor(
    private readonly path: string,
    private readonly maxBytes = DEFAULT_MAX_BYTES,
  ) {
    this.file = openSync(path, 'w', 0o600);
  }

  add(event: HistoryEvent): void {
    this.buffer += `${JSON.stringify(event)}\n`;
    if (this.buffer.length >= BUFFER_CHARACTERS) this.flush();
  }

  flush(): void {
    const bytes = Buffer.from(this.buffer);
    this.buffer = '';
    if (this.bytes + bytes.length > this.maxBytes) throw new Error(`the history ${this.path} would grow beyond ${this.maxBytes} bytes`);
    this.bytes += bytes.length;
    for (let at = 0; at < bytes.length;) at += writeSync(this.file, bytes, at);
  }

  close(): void {
    this.flush();
    closeSync(this.file);
  }
}

/** Checks histories of several observers as one. Throws, with the line's number, when a line is no event. */
export async function checkHistoryFiles(paths: readonly string[]): Promise<HistoryReport> {
  const check = new HistoryCheck();
  for (const path of paths) {
    let number = 0;
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
      number += 1;
      if (line === '') continue;
      check.add(eventOf(line, `${path}:${number}`));
    }
  }
  return check.report();
}

function eventOf(line: string, where: string): HistoryEvent {
  try {
    return HistoryEvent.parse(JSON.parse(line));
  } catch (cause) {
    throw new Error(`${where} is no event of a history: ${line.slice(0, 120)}`, { cause });
  }
}
