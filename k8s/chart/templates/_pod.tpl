{{/* The pod of a process: the same for the gateway and for every stage. */}}

{{- define "hart.security" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hart.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hart.probe" -}}
grpc:
  port: {{ ternary .port (add .port 2000) (eq .root.Values.tls.mode "none") }}
{{- end }}

{{- define "hart.pod" -}}
{{- $preStop := 10 }}
metadata:
  labels: {{- merge (dict) (.values.podLabels | default dict) (include "hart.labels" . | fromYaml) | toYaml | nindent 4 }}
  {{- $chosen := include "hart.exceptions" . | fromYaml }}
  {{- $_ := set $chosen "kubectl.kubernetes.io/default-container" (.name | replace "_" "-") }}
  {{- if and .stage (ne .values.model.source "bundled") }}
  {{- $_ := set $chosen "checksum/model" (include "hart.modelSource" . | sha256sum) }}
  {{- end }}
  annotations: {{- merge (dict) (.values.podAnnotations | default dict) $chosen | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ include "hart.serviceAccount" . }}
  automountServiceAccountToken: {{ and (not .stage) (eq .root.Values.gateway.discovery "kubernetes") }}
  enableServiceLinks: false
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with include "hart.priorityClass" .root }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  # Longer than preStop plus draining: running images end before the kubelet kills the pod.
  terminationGracePeriodSeconds: {{ add (include "hart.seconds" .root | int) $preStop 20 }}
  securityContext: {{- include "hart.podSecurity" . | nindent 4 }}
  {{- if .stage }}{{ include "hart.modelInit" . | nindent 2 }}{{ end }}
  containers:
    - name: {{ .name | replace "_" "-" }}
      image: {{ include "hart.image" . }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- if .stage }}
      args: [services.{{ .name }}]
      {{- end }}
      securityContext: {{- include "hart.security" . | nindent 8 }}
      env: {{- include "hart.environment" . | nindent 8 }}
        - {name: HOME, value: /tmp}
        {{- if .stage }}
        - {name: HF_HUB_OFFLINE, value: "1"}
        - {name: TRITON_CACHE_DIR, value: /var/cache/hart/triton}
        - {name: TORCHINDUCTOR_CACHE_DIR, value: /var/cache/hart/inductor}
        - {name: CUDA_CACHE_PATH, value: /var/cache/hart/cuda}
        {{- end }}
      ports:
        - {name: grpc, containerPort: {{ .port }}}
        - {name: metrics, containerPort: {{ add .port 1000 }}}
        {{- if and (not .stage) .root.Values.gateway.http.enabled }}
        - {name: http, containerPort: {{ add .port 3000 }}}
        {{- end }}
        {{- if and (not .stage) (include "hart.asksGateway" .root) }}
        - {name: scaler, containerPort: {{ include "hart.scalerPort" .root }}}
        {{- end }}
        {{- if ne .root.Values.tls.mode "none" }}
        - {name: health, containerPort: {{ add .port 2000 }}}
        {{- end }}
      # Startup and readiness: the service by its name. Liveness: the process, "".
      startupProbe:
        {{- include "hart.probe" . | nindent 8 }}
          service: {{ .service }}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: {{ div (.values.startupSeconds | default 60 | int) 2 }}
      readinessProbe:
        {{- include "hart.probe" . | nindent 8 }}
          service: {{ .service }}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      livenessProbe:
        {{- include "hart.probe" . | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      lifecycle:
        preStop:
          # The EndpointSlice marks the pod as terminating before it refuses new work.
          sleep: {seconds: {{ $preStop }}}
      resources: {{- include "hart.resources" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if .stage }}
        - {name: kernels, mountPath: /var/cache/hart}
        {{- include "hart.modelMount" . | nindent 8 }}
        {{- end }}
        {{- if ne .root.Values.tls.mode "none" }}
        - {name: tls, mountPath: /etc/hart/tls, readOnly: true}
        {{- end }}
        {{- if and (not .stage) .root.Values.gateway.auth.apiKeys.secret }}
        - {name: keys, mountPath: /etc/hart/keys, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- if .stage }}
    - name: kernels
      emptyDir: {sizeLimit: {{ .values.kernelCacheSizeLimit }}}
    {{- include "hart.modelVolume" . | nindent 4 }}
    {{- end }}
    {{- if ne .root.Values.tls.mode "none" }}
    - name: tls
      secret: {secretName: {{ include "hart.tlsSecret" . }}, defaultMode: 0440}
    {{- end }}
    {{- if not .stage }}{{- with .root.Values.gateway.auth.apiKeys.secret }}
    - name: keys
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}{{ end }}
  {{- with .values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .values.topologySpread }}
  topologySpreadConstraints:
    {{- range .values.topologySpread }}
    - topologyKey: {{ .topologyKey }}
      maxSkew: {{ .maxSkew }}
      whenUnsatisfiable: {{ .whenUnsatisfiable }}
      labelSelector:
        matchLabels: {{- include "hart.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}

{{- define "hart.resources" -}}
{{- $resources := deepCopy .values.resources }}
{{- if and .stage (gt (int .values.gpu.count) 0) }}
{{- $limits := $resources.limits | default dict }}
{{- $_ := set $limits .values.gpu.resource (int .values.gpu.count) }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* A Deployment; without `replicas` if an autoscaler sets it. */}}
{{- define "hart.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "hart.metadata" (merge (dict "annotations" (merge (dict) (.values.deploymentAnnotations | default dict) (include "hart.exceptions" . | fromYaml))) .) | nindent 2 }}
spec:
  {{- if not (include "hart.autoscaled" .) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: {{ add (.values.startupSeconds | default 60 | int) 600 }}
  strategy:
    rollingUpdate: {maxSurge: {{ .values.rollout.maxSurge }}, maxUnavailable: {{ .values.rollout.maxUnavailable }}}
  selector:
    matchLabels: {{- include "hart.selector" . | nindent 6 }}
  template: {{- include "hart.bent" . | nindent 4 }}
{{- end }}

{{- define "hart.autoscaled" -}}
{{- if .stage }}{{ if ne .values.autoscaling.kind "none" }}yes{{ end }}{{ else if .values.autoscaling.enabled }}yes{{ end }}
{{- end }}

{{/* Accepted findings of the policy scanner, each with its reason. */}}
{{- define "hart.exceptions" -}}
checkov.io/skip1: CKV_K8S_43=container images are named by version; image.digest of a process pins a digest
checkov.io/skip2: CKV_K8S_15=a version's image never changes, and IfNotPresent lets a node start a pod without the registry
{{- if .stage }}{{ if or .values.model.huggingFace.tokenSecret .values.model.s3.credentialsSecret }}
checkov.io/skip3: CKV_K8S_35=only the init container gets the download credentials, and its libraries read them from the environment
{{- end }}{{ end }}
{{- if and (not .stage) (eq .root.Values.gateway.discovery "kubernetes") }}
checkov.io/skip3: CKV_K8S_38=the gateway watches EndpointSlices and its Role allows nothing else; discovery by dns needs no token
{{- end }}
{{- end }}
