{{/* Refuses values that conflict with one another, and values without effect. */}}

{{/* A stage that this release deploys. */}}
{{- define "hart.refuse" -}}
{{- $a := .values.autoscaling }}{{ $where := printf "stages.%s" .name }}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) }}
{{- fail (printf "%s.autoscaling: minReplicas %d is over maxReplicas %d" $where (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- end }}
{{- if and (ne $a.kind "none") (eq (int $a.minReplicas) 0) }}
{{- if or (ne $a.kind "keda") (ne $a.trigger "gateway") }}
{{- fail (printf "%s.autoscaling.minReplicas 0: only kind keda with trigger gateway scales from zero; without a replica there is no hart_load metric" $where) }}
{{- end }}
{{- end }}
{{- if and (eq $a.kind "hpa") (eq $a.trigger "gateway") }}
{{- fail (printf "%s.autoscaling: kind hpa and trigger gateway: the trigger is KEDA's, and a stage can have only one autoscaler" $where) }}
{{- end }}
{{- if and $a.query (or (eq $a.kind "hpa") (eq $a.trigger "gateway")) }}
{{- fail (printf "%s.autoscaling.query %q is for kind keda with trigger prometheus, not kind %s with trigger %s" $where $a.query $a.kind $a.trigger) }}
{{- end }}
{{- if gt (int .values.gpu.count) 1 }}
{{- fail (printf "%s.gpu.count %d: a stage has one device, so the others would idle; raise replicas" $where (int .values.gpu.count)) }}
{{- end }}
{{- include "hart.refuseModel" . }}
{{- include "hart.refusePod" (dict "root" .root "values" .values "where" $where) }}
{{- end }}

{{- define "hart.refuseModel" -}}
{{- $where := printf "stages.%s.model" .name }}{{ $m := .values.model }}{{ $source := $m.source }}
{{- $own := (index .root.Values.stages .name | default dict).model | default dict }}
{{- range list "claim" "image" "huggingFace" "s3" }}
{{- if and (hasKey $own .) (ne . $source) }}
{{- fail (printf "%s.%s is given, and %s.source is %s: remove one of them" $where . $where $source) }}
{{- end }}
{{- end }}
{{- range list "files" "folder" "into" }}
{{- if and (index $own .) (eq $source "bundled") }}
{{- fail (printf "%s.%s is given, and %s.source is bundled: the whole model is in the container image" $where . $where) }}
{{- end }}
{{- end }}
{{- if and (eq $source "huggingFace") (not $m.huggingFace.repository) }}
{{- fail (printf "%s.huggingFace.repository is empty: name the repository that holds the model" $where) }}
{{- end }}
{{- if and (eq $source "s3") (not $m.s3.bucket) }}
{{- fail (printf "%s.s3.bucket is empty: name the bucket that holds the model" $where) }}
{{- end }}
{{- if and (include "hart.fetched" .) (not $m.files) }}
{{- fail (printf "%s.files is empty: name each file of the %s source with its SHA-256" $where $source) }}
{{- end }}
{{- end }}

{{/* A stage that runs elsewhere. */}}
{{- define "hart.refuseEndpoints" -}}
{{- $where := printf "stages.%s" .name }}
{{- range .values.endpoints }}
{{- $port := regexFind ":[0-9]+" (trimPrefix "oip://" .) | trimPrefix ":" | int }}
{{- if or (lt $port 1) (gt $port 65535) }}{{ fail (printf "%s.endpoints: %s has no port from 1 to 65535" $where .) }}{{ end }}
{{- end }}
{{- $own := index .root.Values.stages .name | default dict }}
{{- range list "replicas" "autoscaling" "model" "settings" "resources" "gpu" "image" }}
{{- if hasKey $own . }}
{{- fail (printf "%s.%s is given, and %s.endpoints say that the stage runs elsewhere: nothing is deployed here" $where . $where) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod: values that the Kubernetes API would refuse, or that would break our selectors. */}}
{{- define "hart.refusePod" -}}
{{- $where := .where }}{{ $rollout := .values.rollout }}
{{- if and (has (toString $rollout.maxSurge) (list "0" "0%")) (has (toString $rollout.maxUnavailable) (list "0" "0%")) }}
{{- fail (printf "%s.rollout: maxSurge and maxUnavailable are both 0: no pod could ever change" $where) }}
{{- end }}
{{- $limits := .values.resources.limits | default dict }}
{{- range $name, $asked := .values.resources.requests }}
{{- if and $asked (index $limits $name) }}
{{- if gt (include "hart.amount" $asked | float64) (include "hart.amount" (index $limits $name) | float64) }}
{{- fail (printf "%s.resources: requests.%s %v is over limits.%s %v" $where $name $asked $name (index $limits $name)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey (.values.podSpec | default dict) "containers" }}
{{- fail (printf "%s.podSpec.containers would replace the process itself: use extraContainers, or extraEnv, securityContext and the like" $where) }}
{{- end }}
{{- range $label, $_ := .values.podLabels }}
{{- if or (hasPrefix "app.kubernetes.io/" $label) (hasPrefix "helm.sh/" $label) }}
{{- fail (printf "%s.podLabels: %s is the chart's own: Services and policies select pods by it" $where $label) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A quantity as a number: "8Gi" is 8589934592. */}}
{{- define "hart.amount" -}}
{{- $text := include "hart.word" . }}{{ $digits := regexFind "^[0-9.]+([eE][0-9]+)?" $text }}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 }}
{{- mulf (float64 $digits) (index $units (trimPrefix $digits $text)) }}
{{- end }}

{{- define "hart.refuseGateway" -}}
{{- $default := .Values.gateway.settings.default_deadline_seconds | default 60 }}
{{- if gt (float64 $default) (float64 .Values.maxDeadlineSeconds) }}
{{- fail (printf "maxDeadlineSeconds %v is under gateway.settings.default_deadline_seconds %v" .Values.maxDeadlineSeconds $default) }}
{{- end }}
{{- $a := .Values.gateway.autoscaling }}
{{- if and $a.enabled (gt (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- fail (printf "gateway.autoscaling: minReplicas %d is over maxReplicas %d" (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- end }}
{{- $jwt := .Values.gateway.auth.jwt }}
{{- if and $jwt.jwksUrl (not $jwt.issuer) }}
{{- fail "gateway.auth.jwt.issuer is empty: name the issuer of the tokens" }}
{{- end }}
{{- range list "issuer" "audience" "scope" }}
{{- if and (index $jwt .) (not $jwt.jwksUrl) }}
{{- fail (printf "gateway.auth.jwt.%s %q is given without jwksUrl: tokens would not be verified, and every call accepted" . (index $jwt .)) }}
{{- end }}
{{- end }}
{{- include "hart.refusePod" (dict "root" . "values" .Values.gateway "where" "gateway") }}
{{- end }}

{{/* The release as a whole. */}}
{{- define "hart.refuseRelease" -}}
{{- $name := include "hart.fullname" . }}
{{- if not (regexMatch "^[a-z][-a-z0-9]{0,49}$" $name) }}
{{- fail (printf "release name %q: Services are named %s-text-encoder etc.: expected up to 50 of a-z, 0-9 and - before that, beginning with a letter" .Release.Name $name) }}
{{- end }}
{{- $tls := .Values.tls }}
{{- range list "gateway" "stages" }}
{{- if and (index $tls.secrets .) (ne $tls.mode "secrets") }}
{{- fail (printf "tls.secrets.%s %q is given, and tls.mode is %s: remove one of them" . (index $tls.secrets .) $tls.mode) }}
{{- end }}
{{- end }}
{{- if and $tls.certManager.issuer.name (ne $tls.mode "certManager") }}
{{- fail (printf "tls.certManager.issuer.name %q is given, and tls.mode is %s: remove one of them" $tls.certManager.issuer.name $tls.mode) }}
{{- end }}
{{- if and $tls.clientCertificates (eq $tls.mode "none") }}
{{- fail "tls.clientCertificates is true, and tls.mode is none: plaintext has no certificates" }}
{{- end }}
{{- range list "otlpMetrics" "otlpLogs" }}
{{- if and (index $.Values.telemetry .) (not $.Values.telemetry.otlpEndpoint) }}
{{- fail (printf "telemetry.%s is true, and telemetry.otlpEndpoint is empty: name the collector" .) }}
{{- end }}
{{- end }}
{{- if and .Values.telemetry.otlpHeaders.secret (not .Values.telemetry.otlpEndpoint) }}
{{- fail (printf "telemetry.otlpHeaders.secret %q is given, and telemetry.otlpEndpoint is empty: name the collector" .Values.telemetry.otlpHeaders.secret) }}
{{- end }}
{{- range list "ingress" "route" }}
{{- if and $tls.clientCertificates (index $.Values.gateway .).enabled }}
{{- fail (printf "tls.clientCertificates is true, and gateway.%s is enabled: the proxy has no client certificate, so every call through it would fail" .) }}
{{- end }}
{{- end }}
{{- range $label, $_ := .Values.commonLabels }}
{{- if has $label (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") }}
{{- fail (printf "commonLabels: %s is the chart's own: Services and policies select pods by it" $label) }}
{{- end }}
{{- end }}
{{- if and .Values.priorityClass.create (hasPrefix "system-" .Values.priorityClass.name) }}
{{- fail (printf "priorityClass.name %s: names that begin with system- are Kubernetes' own; set create to false to use one" .Values.priorityClass.name) }}
{{- end }}
{{- $used := dict }}
{{- range $name, $_ := include "hart.known" . | fromYaml }}
{{- $_ := set $used (include "hart.context" (list $ $name) | fromYaml).values.model.source "yes" }}
{{- end }}
{{- range $source, $field := dict "claim" "name" "image" "reference" "huggingFace" "repository" "s3" "bucket" }}
{{- if and (index $.Values.defaults.model $source $field) (not (hasKey $used $source)) }}
{{- fail (printf "defaults.model.%s.%s is given, and no stage's model.source is %s" $source $field $source) }}
{{- end }}
{{- end }}
{{- end }}
