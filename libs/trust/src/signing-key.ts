import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { canonicalize } from '@tufjs/canonical-json';
import { Key, Signature } from '@tufjs/models';
import type { SignedMetadata } from './metadata.js';

/** An Ed25519 key that signs metadata. Its id is TUF's: SHA-256 (lower-case hex) of the public key's canonical JSON. */
export class SigningKey {
  readonly publicKey: Key;

  private constructor(private readonly key: KeyObject) {
    const { x } = createPublicKey(key).export({ format: 'jwk' });
    this.publicKey = publicKeyOf(Buffer.from(x!, 'base64url').toString('hex'));
  }

  static generate(): SigningKey {
    return new SigningKey(generateKeyPairSync('ed25519').privateKey);
  }

  /** Throws when the text is no Ed25519 private key in PKCS #8, or the passphrase does not open it. */
  static fromPem(pem: string, passphrase?: string): SigningKey {
    const key = createPrivateKey({ key: pem, ...(passphrase !== undefined && { passphrase }) });
    if (key.asymmetricKeyType !== 'ed25519') throw new Error(`an Ed25519 key signs metadata, not ${key.asymmetricKeyType}`);
    return new SigningKey(key);
  }

  get id(): string {
    return this.publicKey.keyID;
  }

  /** PKCS #8; encrypted (AES-256) with a passphrase. */
  toPem(passphrase?: string): string {
    return this.key.export({
      type: 'pkcs8',
      format: 'pem',
      ...(passphrase !== undefined && { cipher: 'aes-256-cbc', passphrase }),
    }) as string;
  }

  /** Adds this key's signature, or replaces the one it made before. */
  sign(metadata: SignedMetadata): void {
    metadata.sign((bytes) => new Signature({ keyID: this.id, sig: sign(null, bytes, this.key).toString('hex') }));
  }
}

/** `hex`: the 32 bytes of an Ed25519 public key. */
export function publicKeyOf(hex: string): Key {
  const content = { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: hex } };
  const keyID = createHash('sha256').update(canonicalize(content)).digest('hex');
  return new Key({ keyID, keyType: content.keytype, scheme: content.scheme, keyVal: content.keyval });
}
