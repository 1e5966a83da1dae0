{{/* Names, labels and images. `hart.context` makes the argument of the others: a dict with root, name (gateway or a stage's),
     values (a stage's own over the defaults) and stage (true for a stage). */}}

{{- define "hart.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{- define "hart.fullname" -}}
{{- $name := include "hart.name" . }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ $name }}{{ end -}}
{{- end }}

{{- define "hart.component" -}}
{{ include "hart.fullname" .root }}-{{ .name | replace "_" "-" }}
{{- end }}

{{- define "hart.selector" -}}
app.kubernetes.io/name: {{ include "hart.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name | replace "_" "-" }}
{{- end }}

{{- define "hart.labels" -}}
{{- $own := include "hart.selector" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
{{- $shown := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/part-of" "hart" }}
{{- merge $own .root.Values.commonLabels $shown | toYaml }}
{{- end }}

{{/* Optional keys of the argument: object (a name that is not the component's), labels, annotations, cluster (not in a namespace). */}}
{{- define "hart.metadata" -}}
name: {{ .object | default (include "hart.component" .) }}
{{- if not .cluster }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels: {{- merge (dict) (.labels | default dict) (include "hart.labels" . | fromYaml) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The stages in the order of a request's way, with the gRPC service and the port of each. */}}
{{- define "hart.known" -}}
safety: {service: hart.v1.Safety, port: 50052}
text_encoder: {service: hart.v1.TextEncoder, port: 50053}
ar_generator: {service: hart.v1.ArGenerator, port: 50054}
decoder: {service: hart.v1.Decoder, port: 50055}
{{- end }}

{{- define "hart.context" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}
{{- if eq $name "gateway" -}}
{{- dict "name" $name "stage" false "service" "hart.v1.Images" "port" 50051 "values" $root.Values.gateway | toYaml }}
{{- else }}
{{- $known := index (include "hart.known" $root | fromYaml) $name }}
{{- $values := include "hart.overlay" (list $root.Values.defaults (index $root.Values.stages $name | default dict)) | fromJson }}
{{- dict "name" $name "stage" true "service" $known.service "port" (int $known.port) "values" $values | toYaml }}
{{- end }}
{{- end }}

{{- define "hart.image" -}}
{{- $image := .values.image }}
{{- $name := $image.repository | default (ternary "hart-stage" "hart-gateway" .stage) }}
{{- if and .root.Values.image.registry (not $image.repository) }}{{ $name = printf "%s/%s" (.root.Values.image.registry | trimSuffix "/") $name }}{{ end }}
{{- $tag := $image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- if and .stage (not $image.tag) }}{{ $tag = printf "%s-%s" $tag (ternary "gpu" "cpu" (gt (int .values.gpu.count) 0)) }}{{ end }}
{{- $name }}:{{ $tag }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "hart.tlsSecret" -}}
{{- if eq .root.Values.tls.mode "secrets" }}{{ ternary .root.Values.tls.secrets.stages .root.Values.tls.secrets.gateway .stage }}
{{- else }}{{ include "hart.component" . }}-tls{{ end }}
{{- end }}

{{- define "hart.priorityClass" -}}
{{- .Values.priorityClass.name | default (ternary (printf "%s-%s" .Release.Namespace (include "hart.fullname" .)) "" .Values.priorityClass.create) }}
{{- end }}

{{- define "hart.serviceAccount" -}}
{{- $account := ternary .root.Values.stageServiceAccount .root.Values.gateway.serviceAccount .stage }}
{{- $account.name | default (ternary (printf "%s-%s" (include "hart.fullname" .root) (ternary "stage" "gateway" .stage)) "default" $account.create) }}
{{- end }}

{{/* The port in a URL: the given one, or its scheme's default. */}}
{{- define "hart.urlPort" -}}
{{- $host := (urlParse .).host }}
{{- if regexMatch ":[0-9]+$" $host }}{{ regexFind "[0-9]+$" $host }}{{ else }}{{ ternary "443" "80" (hasPrefix "https:" .) }}{{ end }}
{{- end }}
