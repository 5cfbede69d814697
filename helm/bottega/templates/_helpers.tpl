{{- define "bottega.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* (root, role) -> labels that select its pods */}}
{{- define "bottega.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{/* (root, role) -> all labels */}}
{{- define "bottega.labels" -}}
{{ include "bottega.selector" . }}
app.kubernetes.io/part-of: bottega
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "bottega.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "bottega.name" .) -}}
{{- end -}}

{{/* (root, role, values, pool): everything of a pod but its kind. `pool` is empty for the router
and the gateway; `values` is the role's, and the pool's over it. */}}
{{- define "bottega.pod" -}}
{{- $worker := or (eq .role "attention") (eq .role "expert") -}}
{{- $name := include "bottega.name" .root -}}
metadata:
  labels:
    {{- include "bottega.labels" . | nindent 4 }}
    {{- with .pool }}
    bottega/pool: {{ . }}
    {{- end }}
    {{- if eq .role "gateway" }}
    llm-d.ai/engine-type: bottega
    {{- end }}
    {{- with .values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "bottega.serviceAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # More than preStop and drain together, else the kubelet kills what is still answering.
  terminationGracePeriodSeconds: {{ add .values.preStopSeconds .values.drainSeconds (eq .role "gateway" | ternary 15 (eq .role "expert" | ternary 30 (eq .role "attention" | ternary 15 10))) }}
  securityContext:
    {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ printf "%s:%s" .root.Values.image.repository (.root.Values.image.tag | default .root.Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [bottega-{{ .role }}]
      args:
        {{- if ne .role "router" }}
        - --model={{ .root.Values.model.path }}
        - --router={{ $name }}-router:{{ .root.Values.router.port }}
        {{- end }}
        - --config=/etc/bottega/config.yaml
        - --name=$(POD_NAME)
        {{- if eq .role "gateway" }}
        - --served-model-name={{ .root.Values.model.name }}
        {{- end }}
        {{- if $worker }}
        # What a worker listens on is what others connect to.
        - --host=$(POD_IP)
        {{- else }}
        - --host=0.0.0.0
        {{- end }}
        - --port={{ .values.port }}
        - --admin-port=9090
        - --drain-timeout={{ .values.drainSeconds }}s
        {{- range $key, $value := .values.config }}
        - --{{ $key }}={{ $value }}
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: HOME
          value: /tmp
      ports:
        - name: {{ eq .role "gateway" | ternary "http" "grpc" }}
          containerPort: {{ .values.port }}
        - name: admin
          containerPort: 9090
      # The admin port opens before a model is loaded.
      startupProbe:
        httpGet: {path: /live, port: admin}
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /ready, port: admin}
        periodSeconds: 1
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /live, port: admin}
        periodSeconds: 10
        failureThreshold: 10
      {{- if .values.preStopSeconds }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ .values.preStopSeconds | quote }}]}
      {{- end }}
      securityContext:
        {{- toYaml .values.securityContext | nindent 8 }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/bottega, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if ne .role "router" }}
        - {name: model, mountPath: {{ dir .root.Values.model.path }}, readOnly: true}
        {{- end }}
        {{- if $worker }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
  volumes:
    - name: config
      {{- if and (eq .role "gateway") .root.Values.auth.existingSecret }}
      secret: {secretName: {{ .root.Values.auth.existingSecret }}}
      {{- else }}
      configMap: {name: {{ $name }}}
      {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if ne .role "router" }}
    - name: model
      {{- toYaml .root.Values.model.volume | nindent 6 }}
    {{- end }}
    {{- if $worker }}
    # Kubernetes' own is 64 MB; UCX takes 4 MB for each peer.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .root.Values.exchange.sharedMemory }}}
    {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if .values.topologySpreadConstraints }}
    {{- toYaml .values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "bottega.selector" . | nindent 10 }}
    {{- end }}
{{- end -}}
