/** Where a command writes. With `--json` stdout carries one document and nothing else; everything else goes to stderr. */
export interface Output {
  readonly json: boolean;
  /** The command's result: the document with --json, else the text that `human` makes of it. */
  result<T>(document: T, human: (document: T) => string): void;
  /** The same for a document too long for one string: pieces of its JSON, or of the text for people. */
  resultInPieces(json: () => Iterable<string>, human: () => Iterable<string>): void;
  /** One of a row of results that has no end: a line of JSON each with --json. */
  item<T>(document: T, human: (document: T) => string): void;
  /** Text as it is made, such as a streamed answer; nothing with --json. */
  stream(text: string): void;
  /** A remark beside the result. */
  note(text: string): void;
}

export function createOutput(json: boolean, stdout: NodeJS.WritableStream, stderr: NodeJS.WritableStream): Output {
  let printed = false;
  const once = () => {
    if (printed) throw new Error('a command has one result');
    printed = true;
  };
  return {
    json,
    result(document, human) {
      once();
      stdout.write(json ? `${JSON.stringify(document)}\n` : `${human(document)}\n`);
    },
    resultInPieces(pieces, human) {
      once();
      for (const piece of json ? pieces() : human()) stdout.write(piece);
      stdout.write('\n');
    },
    item(document, human) {
      stdout.write(json ? `${JSON.stringify(document)}\n` : `${human(document)}\n`);
    },
    stream(text) {
      if (!json) stdout.write(text);
    },
    note(text) {
      stderr.write(`${text}\n`);
    },
  };
}

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'right';
}

/** A table with columns two blanks apart. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => columns.map((column) => column.value(row)))];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  return cells
    .map((line) =>
      line
        .map((cell, i) => (columns[i]!.align === 'right' ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** 1234567 -> "1.23 MB" (decimal units). */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const unit = Math.min(Math.floor(Math.log10(bytes) / 3), 4);
  const value = bytes / 1000 ** unit;
  return `${value.toPrecision(value >= 999.5 ? 4 : 3)} ${['B', 'kB', 'MB', 'GB', 'TB'][unit]}`;
}
