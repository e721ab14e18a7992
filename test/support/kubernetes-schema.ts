import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const require = createRequire(import.meta.url);
const schemas = join(dirname(require.resolve('kubernetes-models')), '_schemas');

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Record<string, string>; readonly annotations?: Record<string, string> };
  readonly spec: never;
}

interface Validate {
  (manifest: unknown): boolean;
  errors?: readonly { readonly instancePath: string; readonly keyword: string; readonly params: object }[] | null;
}

/**
 * What Kubernetes' own schema of this kind says against a manifest, and every field that the schema does not know: an API server drops those in
 * silence. The compiled schemas read each field that they know and no other, so that what they leave unread is unknown.
 */
export function problemsOf(manifest: Manifest): string[] {
  const validate = (require(join(schemas, `${schemaName(manifest)}.js`)) as { validate: Validate }).validate;
  const unread = new Set<string>();
  const ok = validate(watched(manifest, '', unread));
  const wrong = ok
    ? []
    : (validate.errors ?? []).map(({ instancePath, keyword, params }) => `${instancePath} breaks ${keyword} ${JSON.stringify(params)}`);
  return [...wrong, ...[...unread].map((path) => `${path} is unknown`)].map((problem) => `${manifest.kind} ${manifest.metadata.name}: ${problem}`);
}

/** `networking.k8s.io/v1`, `Ingress`: `IoK8sApiNetworkingV1Ingress`. */
function schemaName({ apiVersion, kind }: Manifest): string {
  const [version, group = 'core'] = apiVersion.split('/').toReversed();
  const capital = (word: string): string => word[0]!.toUpperCase() + word.slice(1);
  return `IoK8sApi${capital(group.replace(/\..*/, ''))}${capital(version!)}${kind}`;
}

function watched(value: unknown, path: string, unread: Set<string>): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const fields = new Map<string, unknown>();
  for (const [name, field] of Object.entries(value)) {
    unread.add(`${path}/${name}`);
    fields.set(name, watched(field, `${path}/${name}`, unread));
  }
  return new Proxy(value, {
    get(target, name) {
      if (typeof name !== 'string' || !fields.has(name)) return Reflect.get(target, name) as unknown;
      unread.delete(`${path}/${name}`);
      return fields.get(name);
    },
  });
}
