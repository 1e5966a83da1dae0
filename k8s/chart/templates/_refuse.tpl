{{/* Values that are right by themselves and cannot be together. */}}
{{- define "hart.refuse" -}}
{{- $a := .values.autoscaling }}{{ $where := printf "stages.%s" .name }}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) }}
{{- fail (printf "%s.autoscaling: minReplicas %d is over maxReplicas %d" $where (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- end }}
{{- if and (ne $a.kind "none") (eq (int $a.minReplicas) 0) }}
{{- if or (ne $a.kind "keda") (ne $a.trigger "gateway") }}
{{- fail (printf "%s.autoscaling.minReplicas 0: only kind keda with trigger gateway starts from zero; without a replica there is no hart_load to ask for" $where) }}
{{- end }}
{{- if or (gt (int .root.Values.gateway.replicas) 1) .root.Values.gateway.autoscaling.enabled }}
{{- fail (printf "%s.autoscaling.minReplicas 0 needs gateway.replicas 1: KEDA asks one gateway, and each sees its own callers alone" $where) }}
{{- end }}
{{- end }}
{{- if and (include "hart.fetched" .) (not .values.model.files) }}
{{- fail (printf "%s.model.files is empty: name each file of the %s source with its SHA-256" $where .values.model.source) }}
{{- end }}
{{- end }}

{{- define "hart.refuseGateway" -}}
{{- $default := .Values.gateway.settings.default_deadline_seconds | default 60 }}
{{- if gt (float64 $default) (float64 .Values.longestDeadlineSeconds) }}
{{- fail (printf "longestDeadlineSeconds %v is under gateway.settings.default_deadline_seconds %v" .Values.longestDeadlineSeconds $default) }}
{{- end }}
{{- $a := .Values.gateway.autoscaling }}
{{- if and $a.enabled (gt (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- fail (printf "gateway.autoscaling: minReplicas %d is over maxReplicas %d" (int $a.minReplicas) (int $a.maxReplicas)) }}
{{- end }}
{{- if and .Values.gateway.auth.jwt.jwksUrl (not .Values.gateway.auth.jwt.issuer) }}
{{- fail "gateway.auth.jwt.issuer is empty: whom must a token name?" }}
{{- end }}
{{- end }}
