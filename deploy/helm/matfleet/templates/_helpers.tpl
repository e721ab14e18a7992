{{- define "matfleet.name" -}}
{{- printf "%s-control-plane" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "matfleet.selector" -}}
app.kubernetes.io/name: matfleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: control-plane
{{- end -}}

{{- define "matfleet.labels" -}}
{{ include "matfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "matfleet.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* Replicas that there may be at the most. */ -}}
{{- define "matfleet.replicasMax" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicas }}{{ end -}}
{{- end -}}

{{- /* What a values file alone cannot say: called once, by the deployment. */ -}}
{{- define "matfleet.check" -}}
{{- $many := gt (include "matfleet.replicasMax" . | int) 1 -}}
{{- if not .Values.database.secret }}{{ fail "database.secret: the name of a secret with DATABASE_URL is needed" }}{{ end -}}
{{- if and $many (not .Values.redis.secret) }}{{ fail "redis.secret: several replicas need a secret with REDIS_URL" }}{{ end -}}
{{- if and $many (not .Values.data.existingClaim) (ne .Values.data.accessMode "ReadWriteMany") }}{{ fail (printf "data.accessMode: several replicas share the data, which %s does not allow" .Values.data.accessMode) }}{{ end -}}
{{- if not .Values.devices.publicHost }}{{ fail "devices.publicHost: the name by which devices reach the control plane is needed" }}{{ end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas lies above autoscaling.maxReplicas" }}{{ end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add (int .Values.preStopSeconds) 15 | int) }}{{ fail "terminationGracePeriodSeconds: preStopSeconds and 15 seconds to drain do not fit" }}{{ end -}}
{{- if and .Values.operators.ingress.enabled (not .Values.operators.ingress.host) }}{{ fail "operators.ingress.host is needed" }}{{ end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.serviceMonitor.apiKeySecret) }}{{ fail "metrics.serviceMonitor.apiKeySecret: a secret with an API key is needed" }}{{ end -}}
{{- end -}}

{{- define "matfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "matfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "matfleet.databaseEnv" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secret }}
      key: {{ .Values.database.key }}
{{- with .Values.database.migrationKey }}
- name: DATABASE_MIGRATION_URL
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.database.secret }}
      key: {{ . }}
{{- end }}
{{- end -}}
