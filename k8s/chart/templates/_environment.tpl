{{/* The environment of a process: HART_<FIELD>, each a setting of its config class. */}}

{{- define "hart.seconds" -}}
{{- /* The maximum deadline, and ten seconds for answers in transit. */ -}}
{{ add .Values.maxDeadlineSeconds 10 }}
{{- end }}

{{- define "hart.endpoints" -}}
{{- $context := .context }}
{{- if $context.values.endpoints }}{{ join "," $context.values.endpoints }}
{{- else }}
{{- $host := include "hart.component" $context }}{{ $namespace := .root.Release.Namespace }}
{{- if eq .root.Values.gateway.discovery "dns" }}dns:///{{ $host }}.{{ $namespace }}.svc:{{ $context.port }}
{{- else }}kubernetes://{{ $namespace }}/{{ $host }}:grpc{{ end }}
{{- end }}
{{- end }}

{{/* The stages that may scale to zero. */}}
{{- define "hart.scaleToZero" -}}
{{- range $name, $_ := include "hart.known" . | fromYaml }}
{{- $v := (include "hart.context" (list $ $name) | fromYaml).values }}
{{- if and (not $v.endpoints) (ne $v.autoscaling.kind "none") (eq (int $v.autoscaling.minReplicas) 0) }}{{ $name }},{{ end }}
{{- end }}
{{- end }}

{{- define "hart.environment" -}}
{{- $v := .root.Values }}
{{- $e := dict "host" $v.listen "port" .port "metrics_port" (add .port 1000) }}
{{- $_ := set $e "log_level" $v.telemetry.logLevel }}
{{- $_ := set $e "record_prompts" $v.telemetry.recordPrompts }}
{{- $_ := set $e "trace_ratio" $v.telemetry.traceRatio }}
{{- with $v.telemetry }}
{{- if .otlpEndpoint }}
{{- $_ := set $e "otlp_endpoint" .otlpEndpoint }}{{ $_ := set $e "otlp_metrics" .otlpMetrics }}{{ $_ := set $e "otlp_logs" .otlpLogs }}
{{- end }}
{{- end }}
{{- $_ := set $e "drain_seconds" (include "hart.seconds" .root) }}
{{- $_ := set $e "connection_age_grace_seconds" (include "hart.seconds" .root) }}
{{- if eq $v.tls.mode "none" }}{{ $_ := set $e "allow_plaintext" true }}
{{- else }}
{{- $_ := set $e "health_port" (add .port 2000) }}
{{- $_ := set $e "tls_cert" "/etc/hart/tls/tls.crt" }}{{ $_ := set $e "tls_key" "/etc/hart/tls/tls.key" }}
{{- if or .stage $v.tls.clientCertificates }}{{ $_ := set $e "tls_ca" "/etc/hart/tls/ca.crt" }}{{ end }}
{{- end }}
{{- if .stage }}
{{- if gt (int .values.gpu.count) 0 }}{{ $_ := set $e "device" "cuda" }}{{ end }}
{{- with ((.values.resources).limits).cpu }}{{ $_ := set $e "torch_threads" (include "hart.wholeCpus" .) }}{{ end }}
{{- if ne .values.model.source "bundled" }}{{ $_ := set $e "checkpoint" (printf "/models/%s" .values.model.folder | trimSuffix "/") }}{{ end }}
{{- else }}
{{- $_ := set $e "max_deadline_seconds" $v.maxDeadlineSeconds }}
{{- if .values.http.enabled }}{{ $_ := set $e "http_port" (add .port 3000) }}{{ end }}
{{- if include "hart.asksGateway" .root }}
{{- $_ := set $e "scaler_port" (include "hart.scalerPort" .root) }}
{{- $byDns := printf "dns:///%s:%s" (include "hart.scalerHost" .root) (include "hart.scalerPort" .root) }}
{{- $watched := printf "kubernetes://%s/%s-gateway-scaler:scaler" .root.Release.Namespace (include "hart.fullname" .root) }}
{{- $_ := set $e "scaler_peers" (ternary $byDns $watched (eq .values.discovery "dns")) }}
{{- end }}
{{- with include "hart.scaleToZero" .root | trimSuffix "," }}{{ $_ := set $e "scale_to_zero_stages" . }}{{ end }}
{{- range $name, $_ := include "hart.known" .root | fromYaml }}
{{- $context := merge (include "hart.context" (list $.root $name) | fromYaml) (dict "root" $.root) }}
{{- $_ := set $e $name (include "hart.endpoints" (dict "root" $.root "context" $context)) }}
{{- end }}
{{- if ne $v.tls.mode "none" }}
{{- $_ := set $e "stage_tls_ca" "/etc/hart/tls/ca.crt" }}
{{- end }}
{{- if .values.auth.apiKeys.secret }}{{ $_ := set $e "api_keys_file" (printf "/etc/hart/keys/%s" .values.auth.apiKeys.key) }}{{ end }}
{{- with .values.auth.jwt }}
{{- if .jwksUrl }}
{{- $_ := set $e "jwt_jwks_url" .jwksUrl }}{{ $_ := set $e "jwt_issuer" .issuer }}
{{- $_ := set $e "jwt_audience" .audience }}{{ $_ := set $e "jwt_scope" .scope }}
{{- end }}
{{- end }}
{{- end }}
{{- include "hart.resourceAttributes" . }}
{{- with $v.telemetry.otlpHeaders.secret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $v.telemetry.otlpHeaders.key }}}}
{{- end }}
{{- range $field, $value := merge (dict) .values.settings $e }}
- name: HART_{{ upper $field }}
  value: {{ include "hart.word" $value | quote }}
{{- end }}
{{- end }}

{{/* The whole CPUs of a limit such as 4, "1500m" or "0.5"; at least 1. */}}
{{- define "hart.wholeCpus" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ max 1 (div (trimSuffix "m" $text | int64) 1000) }}
{{- else }}{{ max 1 (floor (float64 $text)) }}{{ end }}
{{- end }}

{{/* The pod's identity for spans, metrics and logs over OTLP, by the downward API. */}}
{{- define "hart.resourceAttributes" -}}
{{- if .root.Values.telemetry.otlpEndpoint }}
{{- $fields := dict "POD_NAME" "metadata.name" "POD_UID" "metadata.uid" "POD_NAMESPACE" "metadata.namespace" "NODE_NAME" "spec.nodeName" }}
{{- range $name, $path := $fields }}
- name: {{ $name }}
  valueFrom: {fieldRef: {fieldPath: {{ $path }}}}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ printf "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME),k8s.deployment.name=%s,k8s.container.name=%s,hart.release=%s" (include "hart.component" .) (.name | replace "_" "-") .root.Release.Name }}
{{- end }}
{{- end }}

{{/* A value as text: YAML's numbers arrive as floats, and 8589934592 must not become 8.589934592e+09. */}}
{{- define "hart.word" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}
