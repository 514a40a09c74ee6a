{{- define "driftwatch.labels" -}}
app.kubernetes.io/name: driftwatch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "driftwatch.selector" -}}
app.kubernetes.io/name: driftwatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "driftwatch.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "driftwatch.subjects" -}}
- kind: ServiceAccount
  name: {{ include "driftwatch.account" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* The port of config.server.listen. */}}
{{- define "driftwatch.port" -}}
{{- $listen := dig "server" "listen" "127.0.0.1:9464" .Values.config }}
{{- $port := regexFind "[0-9]+$" $listen }}
{{- if or (not $port) (eq $port "0") (regexMatch "^(127\\.|localhost:|\\[::1\\])" $listen) }}
{{- fail (printf "config.server.listen is %s: the kubelet's probes need a fixed port of all addresses, as in 0.0.0.0:9464" $listen) }}
{{- end }}
{{- $port }}
{{- end }}

{{- /* What is spoken there: https with a certificate. */}}
{{- define "driftwatch.scheme" -}}
{{ ternary "https" "http" (not (empty (dig "server" "certificateFile" "" .Values.config))) }}
{{- end }}
