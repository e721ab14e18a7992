import { z } from 'zod';

export const LABELS_MAX = 32;
const KEY = /^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$/;

/** By key. */
export type Labels = Readonly<Record<string, string>>;

const Value = z
  .string()
  .max(200)
  .refine((value) => !value.includes('\0') && value.isWellFormed(), 'holds a character that cannot be stored');

const Key = z.string().regex(KEY, 'a key has 1 to 63 of a-z, 0-9, ".", "_", "/" and "-", and begins and ends with a letter or digit');

/** A JSON merge patch (RFC 7396) of labels: null takes one away. */
export const LabelPatch = z.record(Key, Value.nullable());
export type LabelPatch = z.infer<typeof LabelPatch>;

/** Labels that a new device begins with. */
export const LabelGrant = z
  .record(Key, Value)
  .refine((labels) => Object.keys(labels).length <= LABELS_MAX, `a device has at most ${LABELS_MAX} labels`);
