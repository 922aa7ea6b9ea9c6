{{- define "fairlead.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The base of every object's name; short enough for the longest suffix. */}}
{{- define "fairlead.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "fairlead.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "fairlead.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Names of what belongs to no namespace carry the release's namespace, so that two installs do not meet. */}}
{{- define "fairlead.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "fairlead.fullname" .) | trunc 100 | trimSuffix "-" }}
{{- end }}

{{- define "fairlead.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fairlead.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fairlead.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "fairlead.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fairlead
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What stands below `metadata`: (dict "root" $ "name" NAME "namespace" NAME "labels" DICT "annotations" DICT), the last three may be left out. */}}
{{- define "fairlead.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "fairlead.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What stays when the release goes: in Helm's words (Flux uses them) and in Argo CD's. */}}
{{- define "fairlead.keep" -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false,Delete=false
{{- end }}

{{- define "fairlead.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "fairlead.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name must name an existing service account when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "fairlead.distributed" -}}
{{- if eq .Values.mode "distributed" }}yes{{ end }}
{{- end }}

{{/* Workers have a name of their own, so that nothing that selects the operator's pod finds them. */}}
{{- define "fairlead.workerSelectorLabels" -}}
app.kubernetes.io/name: {{ printf "%s-worker" (include "fairlead.name" .) }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fairlead.workerName" -}}
{{- printf "%s-worker" (include "fairlead.fullname" .) }}
{{- end }}

{{- define "fairlead.plannerUrl" -}}
{{- if .Values.workers.plannerUrl }}
{{- .Values.workers.plannerUrl }}
{{- else }}
{{- printf "http://%s-planner.%s.svc:8082" (include "fairlead.fullname" .) .Release.Namespace }}
{{- end }}
{{- end }}

{{/* Who reads Secrets: whoever talks to business systems. */}}
{{- define "fairlead.secretSubjects" -}}
{{- if include "fairlead.distributed" . -}}
subjects:
- kind: ServiceAccount
  name: {{ include "fairlead.workerName" . }}
  namespace: {{ .Release.Namespace }}
{{- else -}}
{{ include "fairlead.subjects" . }}
{{- end }}
{{- end }}

{{- define "fairlead.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "fairlead.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "fairlead.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "fairlead.gatewayPort" -}}
{{- default (ternary 443 80 (ne .Values.gateway.tls.secretName "")) .Values.gateway.service.port }}
{{- end }}

{{- define "fairlead.gatewayUrl" -}}
{{- if .Values.gateway.url }}
{{- .Values.gateway.url }}
{{- else }}
{{- $scheme := ternary "https" "http" (ne .Values.gateway.tls.secretName "") }}
{{- printf "%s://%s-gateway.%s.svc:%s" $scheme (include "fairlead.fullname" .) .Release.Namespace (include "fairlead.gatewayPort" .) }}
{{- end }}
{{- end }}
