{{/* How Kubernetes asks for the service's health. Its own gRPC probes speak no TLS. */}}
{{- define "safelight.probe" -}}
{{- if .Values.service.tls.existingSecret -}}
exec:
  command: [python, -m, safelight_service.grpc_server.probe, --tls, /etc/safelight/tls, "127.0.0.1:{{ .Values.service.port }}"]
timeoutSeconds: 10
{{- else -}}
grpc: {port: {{ .Values.service.port }}}
timeoutSeconds: 5
{{- end -}}
{{- end -}}

{{/* Resources of the container, with its GPUs. */}}
{{- define "safelight.serviceResources" -}}
{{- $resources := deepCopy .Values.service.resources -}}
{{- $gpu := .Values.service.gpu -}}
{{- if gt (int $gpu.count) 0 -}}
{{- $limits := merge (dict $gpu.resource (int $gpu.count)) (default (dict) $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
