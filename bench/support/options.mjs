// Values of command-line options: what is wrong ends the run with the option's name, and its usage.

const wrong = (message) => Object.assign(new Error(message), { code: 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE' });

/** A whole number from 1 on. */
export function whole(option, text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw wrong(`${option} ${text}: a whole number from 1 on`);
  return value;
}

/** `2GB`, `500MB`: powers of ten. */
export function bytesOf(option, text) {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(MB|GB)$/.exec(text) ?? [];
  if (!number || Number(number) === 0) throw wrong(`${option} ${text}: a size such as 500MB or 2GB`);
  return Number(number) * (unit === 'GB' ? 1e9 : 1e6);
}
