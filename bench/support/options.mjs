// Values of command-line options.

/** A whole number from 1 on; anything else ends the run with the option's name, and its usage. */
export function whole(option, text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw Object.assign(new Error(`${option} ${text}: a whole number from 1 on`), { code: 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE' });
  return value;
}
