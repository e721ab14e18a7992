/** What an operator hands to a new device: the right to enrol once, and which CA to trust while doing so. */
export interface JoinToken {
  /** base64url, at least 16 characters. Only this part is sent to the control plane. */
  readonly secret: string;
  /** SHA-256 of the fleet CA certificate's DER bytes, lower-case hex. */
  readonly caSha256: string;
}

const SHAPE = /^mf1\.([A-Za-z0-9_-]{16,128})\.([0-9a-f]{64})$/;

/** `mf1.<secret>.<caSha256>`. Throws when a part has the wrong shape, so that a token that is handed out can be read back. */
export function formatJoinToken(token: JoinToken): string {
  const text = `mf1.${token.secret}.${token.caSha256}`;
  if (!SHAPE.test(text)) throw new Error('a join token needs a base64url secret of 16 to 128 characters and a lower-case hex SHA-256');
  return text;
}

/** Throws, without repeating the token, when the text is not a join token. */
export function parseJoinToken(text: string): JoinToken {
  const match = SHAPE.exec(text.trim());
  if (!match)
    throw new Error(`not a join token: expected mf1.<secret>.<sha256 of the CA certificate>, got ${text.trim().length} characters of another shape`);
  return { secret: match[1]!, caSha256: match[2]! };
}
