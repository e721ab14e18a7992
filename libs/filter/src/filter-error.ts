/** A filter that cannot be used: what is wrong, and where. Lines and columns count from 1. */
export class FilterError extends Error {
  readonly line: number;
  readonly column: number;

  constructor(
    readonly problem: string,
    text: string,
    /** Characters from the start of the filter. */
    offset: number,
  ) {
    const before = text.slice(0, offset).split('\n');
    const line = before.length;
    const column = before.at(-1)!.length + 1;
    super(`filter, ${line > 1 ? `line ${line}, ` : ''}column ${column}: ${problem}`);
    this.line = line;
    this.column = column;
  }
}
