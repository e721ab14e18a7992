import { Priority, Privacy, type GenerateRequest } from '@matfleet/protocol';
import { badRequest } from './http-error.js';

const PRIORITIES: Readonly<Record<string, Priority>> = {
  interactive: Priority.PRIORITY_INTERACTIVE,
  normal: Priority.PRIORITY_NORMAL,
  background: Priority.PRIORITY_BACKGROUND,
};

const PRIVACIES: Readonly<Record<string, Privacy>> = {
  device: Privacy.PRIVACY_DEVICE,
  site: Privacy.PRIVACY_SITE,
  fleet: Privacy.PRIVACY_FLEET,
};

/** What neither API has a field for: `x-matfleet-priority`, `-privacy`, `-quality-floor` and `-task`. */
export function wishesOf(header: (name: string) => string | undefined): Partial<GenerateRequest> {
  const priority = named('x-matfleet-priority', header, PRIORITIES);
  const privacy = named('x-matfleet-privacy', header, PRIVACIES);
  const qualityFloor = floor(header('x-matfleet-quality-floor'));
  const task = header('x-matfleet-task');
  return {
    ...(priority !== undefined && { priority }),
    ...(privacy !== undefined && { privacy }),
    ...(qualityFloor !== undefined && { qualityFloor }),
    ...(task !== undefined && { task }),
  };
}

function named<Value>(name: string, header: (name: string) => string | undefined, values: Readonly<Record<string, Value>>): Value | undefined {
  const text = header(name);
  if (text === undefined) return undefined;
  if (!Object.hasOwn(values, text)) throw badRequest(`${name} is ${JSON.stringify(text)}; it can be ${Object.keys(values).join(', ')}`);
  return values[text];
}

function floor(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 1))
    throw badRequest(`x-matfleet-quality-floor is ${JSON.stringify(text)}; it must be a number from 0 to 1`);
  return value;
}
