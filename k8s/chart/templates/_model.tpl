{{/* The source of a stage's weights. The stage's container starts after the init container has verified every file by its
     SHA-256: fetched into the pod's own volume, or already on the volume. */}}

{{- define "hart.fetched" -}}
{{- if has .values.model.source (list "huggingFace" "s3") }}yes{{ end }}
{{- end }}

{{- define "hart.modelSource" -}}
{{- $m := .values.model }}
{{- $source := dict "source" $m.source "files" $m.files "target" (printf "/models/%s" (.values.model.folder) | trimSuffix "/") "into" $m.into }}
{{- if eq $m.source "huggingFace" }}{{ $_ := set $source "from" (omit $m.huggingFace "tokenSecret") }}{{ end }}
{{- if eq $m.source "s3" }}{{ $_ := set $source "from" (omit $m.s3 "credentialsSecret") }}{{ end }}
{{- $source | toJson }}
{{- end }}

{{- define "hart.modelInit" -}}
{{- $m := .values.model }}
{{- if or (include "hart.fetched" .) (and $m.files (ne $m.source "bundled")) -}}
initContainers:
  - name: model
    image: {{ include "hart.image" . }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [python, /etc/hart/fetch/fetch_model.py]
    securityContext: {{- include "hart.security" . | nindent 6 }}
    env:
      - {name: HOME, value: /tmp}
      - name: MODEL_SOURCE
        value: {{ include "hart.modelSource" . | quote }}
      {{- if and (eq $m.source "huggingFace") $m.huggingFace.tokenSecret }}
      - name: HF_TOKEN
        valueFrom: {secretKeyRef: {name: {{ $m.huggingFace.tokenSecret }}, key: token}}
      {{- end }}
      {{- if and (eq $m.source "s3") $m.s3.credentialsSecret }}
      {{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
      - name: {{ . }}
        valueFrom: {secretKeyRef: {name: {{ $m.s3.credentialsSecret }}, key: {{ . }}}}
      {{- end }}
      {{- end }}
    resources:
      requests: {cpu: 250m, memory: 512Mi}
      limits: {cpu: "2", memory: 1Gi}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: fetch, mountPath: /etc/hart/fetch, readOnly: true}
      - {name: models, mountPath: /models, readOnly: {{ not (include "hart.fetched" .) }}}
{{- end }}
{{- end }}

{{- define "hart.modelMount" -}}
{{- if ne .values.model.source "bundled" -}}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "hart.modelVolume" -}}
{{- $m := .values.model }}
{{- if ne $m.source "bundled" }}
- name: models
  {{- if eq $m.source "claim" }}
  persistentVolumeClaim: {claimName: {{ required (printf "stages.%s.model.claim.name: required: the claim that holds the model" .name) $m.claim.name }}, readOnly: true}
  {{- else if eq $m.source "image" }}
  image: {reference: {{ required (printf "stages.%s.model.image.reference: required: the image volume that holds the model" .name) $m.image.reference | quote }}, pullPolicy: {{ $m.image.pullPolicy }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ $m.sizeLimit }}}
  {{- end }}
- name: fetch
  configMap: {name: {{ include "hart.fullname" .root }}-fetch, defaultMode: 0444}
{{- end }}
{{- end }}
