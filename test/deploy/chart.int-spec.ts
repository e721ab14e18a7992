import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { describeWithHelm, helm } from '../support/helm.js';
import { problemsOf, type Manifest } from '../support/kubernetes-schema.js';

const root = new URL('../..', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');
const chart = new URL('deploy/helm/matfleet', root).pathname;
const needed = ['database.secret=matfleet-database', 'redis.secret=matfleet-redis', 'devices.publicHost=fleet.example.com'];

interface Container {
  readonly image: string;
  readonly args?: readonly string[];
  readonly securityContext: Record<string, unknown>;
  readonly env: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly secretKeyRef?: { readonly name: string } };
  }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
}
interface PodSpec {
  readonly terminationGracePeriodSeconds: number;
  readonly securityContext: Record<string, unknown>;
  readonly automountServiceAccountToken: boolean;
  readonly containers: readonly [Container];
}

function template(...values: string[]) {
  return helm('template', 'fleet', chart, '--namespace', 'matfleet', '--kube-version', '1.34.0', ...values.flatMap((value) => ['--set', value]));
}

function render(...values: string[]): Manifest[] {
  const { ok, stdout, stderr } = template(...needed, ...values);
  if (!ok) throw new Error(stderr);
  return parseAllDocuments(stdout).map((document) => document.toJS() as Manifest);
}

const podOf = (manifest: Manifest): PodSpec => (manifest.spec as { template: { spec: PodSpec } }).template.spec;
const one = (manifests: readonly Manifest[], kind: string): Manifest => {
  const found = manifests.filter((manifest) => manifest.kind === kind);
  if (found.length !== 1) throw new Error(`${found.length} manifests of kind ${kind}`);
  return found[0]!;
};

const everything = [
  ...['autoscaling.enabled=true', 'operators.ingress.enabled=true', 'operators.ingress.host=ops.example.com', 'operators.ingress.tlsSecret=tls'],
  ...['operators.ingress.className=nginx', 'networkPolicy.operatorsFrom[0].name=ingress', 'imagePullSecrets[0].name=pull', 'data.storageClass=nfs'],
  ...['env.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318', 'env.MATFLEET_HEARTBEAT_MS=5000', 'podAnnotations.a=b', 'nodeSelector.disk=fast'],
  ...['tolerations[0].key=a', 'tolerations[0].operator=Exists', 'metrics.serviceMonitor.enabled=true', 'metrics.serviceMonitor.apiKeySecret=key'],
];

describeWithHelm('the Helm chart', () => {
  it('passes helm lint', () => {
    const { ok, stdout } = helm('lint', '--strict', chart, ...needed.flatMap((value) => ['--set', value]));
    expect([ok, stdout.match(/\[(ERROR|WARNING)\].*/g)]).toEqual([true, null]);
  });

  it.each([
    ['as it comes', []],
    ['with everything', everything],
    [
      'as one replica on a claim of its own',
      ['replicas=1', 'data.accessMode=ReadWriteOnce', 'redis.secret=', 'migrations.enabled=false', 'networkPolicy.enabled=false'],
    ],
  ])('renders what Kubernetes’ schemas take, and no field that they do not know: %s', (_how, values) => {
    // ServiceMonitor is no kind of Kubernetes' own.
    const manifests = render(...values).filter(({ kind }) => kind !== 'ServiceMonitor');
    expect(manifests.length).toBeGreaterThan(4);
    expect(manifests.flatMap(problemsOf)).toEqual([]);
  });

  it('is checked by something that can fail', () => {
    const deployment = JSON.parse(JSON.stringify(one(render(), 'Deployment'))) as { spec: Record<string, unknown> };
    deployment.spec['replicas'] = 'two';
    deployment.spec['replica'] = 2;
    expect(problemsOf(deployment as unknown as Manifest)).toEqual([
      'Deployment fleet-control-plane: /spec/replicas breaks type {"type":"integer"}',
      'Deployment fleet-control-plane: /spec/replica is unknown',
    ]);
  });

  it.each([
    [['database.secret='], 'database.secret: the name of a secret with DATABASE_URL is needed'],
    [['redis.secret='], 'redis.secret: several replicas need a secret with REDIS_URL'],
    [['devices.publicHost='], 'devices.publicHost: the name by which devices reach the control plane is needed'],
    [['data.accessMode=ReadWriteOnce'], 'several replicas share the data, which ReadWriteOnce does not allow'],
    [['autoscaling.enabled=true', 'autoscaling.minReplicas=9'], 'autoscaling.minReplicas lies above autoscaling.maxReplicas'],
    [['preStopSeconds=30'], 'preStopSeconds and 15 seconds to drain do not fit'],
    [['metrics.serviceMonitor.enabled=true'], 'metrics.serviceMonitor.apiKeySecret'],
    [['replica=3'], 'replica'],
    [['env.LD_PRELOAD=x'], 'LD_PRELOAD'],
  ])('refuses %j by name', (values, message) => {
    const { ok, stderr } = template(...needed, ...values);
    expect(ok).toBe(false);
    expect(stderr).toContain(message);
  });

  it('runs pods as an ordinary user on a read-only root, without a token of the cluster, and holds no secret', () => {
    const manifests = render(...everything);
    for (const manifest of [one(manifests, 'Deployment'), one(manifests, 'Job')]) {
      const pod = podOf(manifest);
      expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } });
      expect(pod.automountServiceAccountToken).toBe(false);
      expect(pod.containers[0].securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(pod.containers[0].env.find(({ name }) => name === 'DATABASE_URL')?.valueFrom?.secretKeyRef?.name).toBe('matfleet-database');
    }
    expect(manifests.some(({ kind }) => kind === 'Secret')).toBe(false);
  });

  it('agrees with the image, with .env.example and with the time that a replica takes to drain', () => {
    const pod = podOf(one(render(), 'Deployment'));
    const [container] = pod.containers;
    const dockerfile = read('deploy/control-plane.Dockerfile');
    expect(container.ports!.map(({ containerPort }) => containerPort).join(' ')).toBe(/EXPOSE (.*)/.exec(dockerfile)![1]);
    expect(dockerfile).toContain(`MATFLEET_DATA_DIR=${container.env.find(({ name }) => name === 'MATFLEET_DATA_DIR')!.value}`);
    const known = new Set([...read('.env.example').matchAll(/^([A-Z][A-Z0-9_]*)=/gm)].map(([, name]) => name));
    expect(container.env.map(({ name }) => name).filter((name) => name !== 'POD_IP' && !known.has(name))).toEqual([]);
    const stopMs = Number(/STOP_TIMEOUT_MS = ([\d_]+)/.exec(read('apps/control-plane/src/main.ts'))![1]!.replaceAll('_', ''));
    expect(pod.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(stopMs + 5_000);
  });

  it('migrates in a job before an install and an upgrade, by a command that the image has', () => {
    const job = one(render(), 'Job');
    expect(job.metadata.annotations!['helm.sh/hook']).toBe('pre-install,pre-upgrade');
    const [script] = podOf(job).containers[0].args!;
    expect(existsSync(new URL(script!, root))).toBe(true);
    expect(read('deploy/control-plane.Dockerfile')).toContain('COPY apps/control-plane/bin apps/control-plane/bin');
  });

  it('leaves the number of replicas to the autoscaler where there is one, and one replica at a time may be disturbed', () => {
    const scaled = render('autoscaling.enabled=true');
    expect((one(scaled, 'Deployment').spec as { replicas?: number }).replicas).toBeUndefined();
    expect(one(scaled, 'HorizontalPodAutoscaler').spec).toMatchObject({ minReplicas: 2, maxReplicas: 6 });
    expect(one(scaled, 'PodDisruptionBudget').spec).toMatchObject({ maxUnavailable: 1 });
    expect((one(render(), 'Deployment').spec as { replicas?: number }).replicas).toBe(2);
  });
});
