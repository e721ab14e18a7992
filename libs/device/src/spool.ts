import type { Report } from '@matfleet/protocol';

const CAPACITY = 16;

/** Reports that the control plane has not acknowledged. Of one generation only the newest counts, so a long time offline costs a few entries. */
export class ReportSpool {
  private sequence = 0n;
  private readonly byGeneration = new Map<bigint, Report>();

  /** The report with its sequence number, to be sent now or after the next Welcome. */
  add(report: Omit<Report, 'sequence'>): Report {
    const numbered = { ...report, sequence: ++this.sequence };
    this.byGeneration.delete(report.generation);
    this.byGeneration.set(report.generation, numbered);
    if (this.byGeneration.size > CAPACITY) this.byGeneration.delete(this.byGeneration.keys().next().value!);
    return numbered;
  }

  acknowledge(sequence: bigint): void {
    for (const [generation, report] of this.byGeneration) if (report.sequence <= sequence) this.byGeneration.delete(generation);
  }

  /** Oldest first. */
  pending(): Report[] {
    return [...this.byGeneration.values()];
  }
}
