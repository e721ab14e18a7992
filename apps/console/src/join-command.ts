export interface Join {
  readonly deviceUrl: string;
  /** Undefined until a token was made; the command then shows where it will stand. */
  readonly token: string | undefined;
  readonly name: string;
  readonly memory: string;
}

/** The shell command that turns a box into a device of this fleet. */
export function joinCommand({ deviceUrl, token, name, memory }: Join): string {
  return [
    'matfleet-agent',
    `--join ${quote(deviceUrl)}`,
    `--token ${token === undefined ? '<token>' : quote(token)}`,
    `--name ${quote(name)}`,
    `--model-memory ${quote(memory)}`,
  ].join(' \\\n  ');
}

/** What a POSIX shell takes as one word, whatever is in it. */
const quote = (text: string): string => (/^[\w.:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
