export interface StepResult {
  step: string;
  ok: boolean;
  seconds: number;
  detail: unknown;
}

/** What the demo shows: lines for people on one stream, the same facts as one JSON document for programs. */
export class Report {
  readonly steps: StepResult[] = [];
  private number = 0;

  constructor(private readonly print: (line: string) => void) {}

  line(text: string): void {
    this.print(`   ${text}`);
  }

  /** Runs one step; its result counts only if it did not throw. */
  async step<T>(title: string, run: () => Promise<T>, detailOf: (result: T) => unknown = (result) => result): Promise<T> {
    this.print(`\n${++this.number}. ${title}`);
    const start = performance.now();
    const done = (ok: boolean, detail: unknown): void => {
      this.steps.push({ step: title, ok, seconds: Number(((performance.now() - start) / 1000).toFixed(2)), detail });
    };
    try {
      const result = await run();
      done(true, detailOf(result));
      return result;
    } catch (error) {
      done(false, error instanceof Error ? error.message : String(error));
      this.print(`   FAILED: ${error instanceof Error ? error.message : String(error)}`);
      throw error;
    }
  }

  /** A step that the later ones can do without: its failure is recorded and the story goes on. */
  async attempt<T>(title: string, run: () => Promise<T>): Promise<T | undefined> {
    return this.step(title, run).catch(() => undefined);
  }

  get failed(): StepResult[] {
    return this.steps.filter(({ ok }) => !ok);
  }
}
