import { Priority } from '@matfleet/protocol';
import { badRequest } from './http-error.js';

const PRIORITIES: Readonly<Record<string, Priority>> = {
  interactive: Priority.PRIORITY_INTERACTIVE,
  normal: Priority.PRIORITY_NORMAL,
  background: Priority.PRIORITY_BACKGROUND,
};

/** The class that `x-matfleet-priority` names. */
export function priorityOf(header: string | undefined): { priority?: Priority } {
  if (header === undefined) return {};
  const priority = Object.hasOwn(PRIORITIES, header) ? PRIORITIES[header] : undefined;
  if (priority === undefined) throw badRequest(`x-matfleet-priority is ${JSON.stringify(header)}; it can be ${Object.keys(PRIORITIES).join(', ')}`);
  return { priority };
}
