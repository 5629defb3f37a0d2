{{- define "safelight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Release and chart, short enough for the suffixes of the parts. */}}
{{- define "safelight.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "safelight.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "safelight.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of a part. Takes (list ROOT PART). */}}
{{- define "safelight.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "safelight.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of an object of a part. Takes (list ROOT PART). */}}
{{- define "safelight.labels" -}}
{{- $root := index . 0 -}}
{{ include "safelight.selector" . }}
app.kubernetes.io/part-of: safelight
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image of a part: REPOSITORY:TAG, by default of the chart's appVersion. Takes (list ROOT IMAGE). */}}
{{- define "safelight.image" -}}
{{- $image := index . 1 -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}

{{- define "safelight.serviceAccountName" -}}
{{- default (ternary (include "safelight.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Name that Envoy resolves to the addresses of all ready replicas. */}}
{{- define "safelight.replicasHost" -}}
{{- printf "%s-replicas.%s.svc.%s" (include "safelight.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* Secret with the certificate that callers of the entry see; nothing without TLS. */}}
{{- define "safelight.entryTlsSecret" -}}
{{- if .Values.envoy.enabled -}}{{ .Values.envoy.tls.existingSecret }}{{- else -}}{{ .Values.service.tls.existingSecret }}{{- end -}}
{{- end -}}
