{{/* Scales a stage by hart_load. On scale-down a pod finishes its images first, by preStop, draining and the grace period;
     the policy below keeps warm replicas through a short lull. */}}

{{/* The headless Service of all gateways' external scalers: KEDA dials one of them, and they ask one another. */}}
{{- define "hart.scalerHost" -}}
{{ include "hart.fullname" . }}-gateway-scaler.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "hart.scalerPort" -}}
54051
{{- end }}

{{- define "hart.behavior" -}}
scaleDown:
  stabilizationWindowSeconds: {{ .values.autoscaling.scaleDownSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 2, periodSeconds: 30}
{{- end }}

{{- define "hart.autoscaler" -}}
{{- $a := .values.autoscaling }}
{{- if eq $a.kind "hpa" }}
---
# Needs an adapter that serves hart_load as a pod metric: its rule is in docs/operations.md.
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{- include "hart.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "hart.component" . }}}
  minReplicas: {{ $a.minReplicas }}
  maxReplicas: {{ $a.maxReplicas }}
  metrics:
    - type: Pods
      pods:
        metric: {name: hart_load}
        target: {type: AverageValue, averageValue: {{ printf "%dm" (mulf $a.targetLoad 1000 | int) | quote }}}
  behavior: {{- include "hart.behavior" . | nindent 4 }}
{{- else if eq $a.kind "keda" }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{- include "hart.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {name: {{ include "hart.component" . }}}
  minReplicaCount: {{ $a.minReplicas }}
  maxReplicaCount: {{ $a.maxReplicas }}
  pollingInterval: 10
  cooldownPeriod: {{ $a.scaleDownSeconds }}
  {{- if gt (int $a.minReplicas) 0 }}
  fallback: {failureThreshold: 6, replicas: {{ $a.minReplicas }}, behavior: currentReplicasIfHigher}
  {{- end }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- include "hart.behavior" . | nindent 8 }}
  triggers:
    {{- if eq $a.trigger "gateway" }}
    - type: external-push
      metadata:
        scalerAddress: {{ include "hart.scalerHost" .root }}:{{ include "hart.scalerPort" .root }}
        stage: {{ .name }}
        targetLoad: {{ $a.targetLoad | quote }}
        {{- if ne .root.Values.tls.mode "none" }}
        enableTLS: "true"
        {{- end }}
      {{- if ne .root.Values.tls.mode "none" }}
      authenticationRef: {name: {{ include "hart.fullname" .root }}-scaler}
      {{- end }}
    {{- else }}
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: {{ .root.Values.monitoring.prometheusUrl }}
        query: {{ $a.query | default (printf "sum(hart_load{namespace=%q,stage=%q,pod=~\"%s-.+\"})" .root.Release.Namespace .name (include "hart.component" .)) | quote }}
        threshold: {{ $a.targetLoad | quote }}
    {{- end }}
{{- end }}
{{- end }}
