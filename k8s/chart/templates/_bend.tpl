{{/* Values that bend a pod beyond the chart's own: merged in last, by name where Kubernetes has names. */}}

{{/* `list BASE OVER` as JSON: OVER on BASE, key by key. A null in OVER removes the key, a list replaces a list. */}}
{{- define "hart.overlay" -}}
{{- $base := deepCopy (index . 0) }}
{{- range $key, $value := index . 1 }}
{{- if kindIs "invalid" $value }}{{ $_ := unset $base $key }}
{{- else if and (kindIs "map" $value) (kindIs "map" (index $base $key)) }}
{{- $_ := set $base $key (include "hart.overlay" (list (index $base $key) $value) | fromJson) }}
{{- else }}{{ $_ := set $base $key $value }}
{{- end }}
{{- end }}
{{- toJson $base }}
{{- end }}

{{/* `list FIELD BASE OVER` as JSON, {"items": …}: OVER after BASE; an entry of BASE with the same value in FIELD is left out. */}}
{{- define "hart.append" -}}
{{- $field := index . 0 }}{{ $over := index . 2 | default list }}
{{- $taken := dict }}{{ range $over }}{{ $_ := set $taken (index . $field | toString) "yes" }}{{ end }}
{{- $items := list }}
{{- range index . 1 }}{{ if not (hasKey $taken (index . $field | toString)) }}{{ $items = append $items . }}{{ end }}{{ end }}
{{- dict "items" (concat $items $over) | toJson }}
{{- end }}

{{/* `list CONTAINER VALUES` as JSON: what holds for every container of the chart. */}}
{{- define "hart.bendContainer" -}}
{{- $c := deepCopy (index . 0) }}{{ $v := index . 1 }}
{{- $_ := set $c "env" (include "hart.append" (list "name" ($c.env | default list) $v.extraEnv) | fromJson).items }}
{{- $_ := set $c "volumeMounts" (include "hart.append" (list "mountPath" ($c.volumeMounts | default list) $v.extraVolumeMounts) | fromJson).items }}
{{- with $v.envFrom }}{{ $_ := set $c "envFrom" . }}{{ end }}
{{- $_ := set $c "securityContext" (include "hart.overlay" (list $c.securityContext ($v.securityContext | default dict)) | fromJson) }}
{{- toJson $c }}
{{- end }}

{{/* A pod template with the values of its process merged in; YAML. */}}
{{- define "hart.bent" -}}
{{- $pod := include "hart.pod" . | fromYaml }}{{ $spec := $pod.spec }}{{ $v := .values }}
{{- $main := include "hart.bendContainer" (list (first $spec.containers) $v) | fromJson }}
{{- range list "lifecycle" "startupProbe" "readinessProbe" "livenessProbe" }}
{{- with index $v . }}{{ else }}{{ continue }}{{ end }}
{{- $_ := set $main . (include "hart.overlay" (list (index $main .) (index $v .)) | fromJson) }}
{{- end }}
{{- $_ := set $spec "containers" (prepend ($v.extraContainers | default list) $main) }}
{{- $before := $v.extraInitContainers | default list }}
{{- range $spec.initContainers }}{{ $before = append $before (include "hart.bendContainer" (list . $v) | fromJson) }}{{ end }}
{{- if $before }}{{ $_ := set $spec "initContainers" $before }}{{ end }}
{{- $_ := set $spec "volumes" (include "hart.append" (list "name" $spec.volumes $v.extraVolumes) | fromJson).items }}
{{- $_ := set $spec "securityContext" (include "hart.overlay" (list $spec.securityContext ($v.podSecurityContext | default dict)) | fromJson) }}
{{- range list "schedulerName" "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- with index $v . }}{{ else }}{{ continue }}{{ end }}
{{- $_ := set $spec . (index $v .) }}
{{- end }}
{{- $_ := set $pod "spec" (include "hart.overlay" (list $spec ($v.podSpec | default dict)) | fromJson) }}
{{- toYaml $pod }}
{{- end }}
