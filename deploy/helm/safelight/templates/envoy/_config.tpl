{{/*
Envoy's configuration: deploy/envoy.yaml of the repository, in front of all replicas.
*/}}
{{- define "safelight.envoyConfig" -}}
{{- $config := .Files.Get "files/envoy.yaml" | fromYaml -}}
{{- $static := $config.static_resources -}}
{{- $listener := first $static.listeners -}}
{{- $cluster := first $static.clusters -}}
{{- $chain := first $listener.filter_chains -}}
{{- $manager := (first $chain.filters).typed_config -}}
{{- $host := first $manager.route_config.virtual_hosts -}}

{{- $_ := set $listener "address" (include "safelight.socketAddress" (list "0.0.0.0" 8081) | fromYaml) -}}
{{- if .Values.envoy.tls.existingSecret -}}
{{- $_ := set $chain "transport_socket" (include "safelight.downstreamTls" . | fromYaml) -}}
{{- end -}}
{{- if .Values.envoy.corsOrigins -}}
{{- $origins := list -}}
{{- range .Values.envoy.corsOrigins -}}{{- $origins = append $origins (dict "exact" .) -}}{{- end -}}
{{- $_ := set (index $host.typed_per_filter_config "envoy.filters.http.cors") "allow_origin_string_match" $origins -}}
{{- end -}}

{{- $_ := mergeOverwrite $cluster (include "safelight.replicasCluster" . | fromYaml) -}}
{{- if .Values.service.tls.existingSecret -}}
{{- $_ := set $cluster "transport_socket" (include "safelight.upstreamTls" . | fromYaml) -}}
{{- end -}}
{{- $_ := set $static "listeners" (append $static.listeners (include "safelight.statusListener" . | fromYaml)) -}}
{{- $_ := set $static "clusters" (append $static.clusters (include "safelight.adminCluster" . | fromYaml)) -}}
{{- $_ := set $config "admin" (dict "address" (include "safelight.socketAddress" (list "127.0.0.1" 9901) | fromYaml)) -}}
{{- $_ := set $config "node" (dict "id" "envoy" "cluster" (include "safelight.fullname" .)) -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "safelight.socketAddress" -}}
socket_address: {address: {{ index . 0 }}, port_value: {{ index . 1 }}}
{{- end -}}

{{- define "safelight.replicasCluster" -}}
load_assignment:
  cluster_name: safelight
  endpoints:
    - lb_endpoints:
        - endpoint:
            address: {{- include "safelight.socketAddress" (list (include "safelight.replicasHost" .) .Values.service.port) | nindent 14 }}
{{- end -}}

{{/* What probes and Prometheus may read of the admin interface, which itself stays on loopback. */}}
{{- define "safelight.statusListener" -}}
name: status
address: {{- include "safelight.socketAddress" (list "0.0.0.0" 9902) | nindent 2 }}
filter_chains:
  - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: status
          route_config:
            virtual_hosts:
              - name: status
                domains: ["*"]
                routes:
                  - {match: {path: /ready}, route: {cluster: admin}}
                  - {match: {path: /stats/prometheus}, route: {cluster: admin}}
          http_filters:
            - name: envoy.filters.http.router
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{{- end -}}

{{- define "safelight.adminCluster" -}}
name: admin
type: STATIC
connect_timeout: 1s
load_assignment:
  cluster_name: admin
  endpoints:
    - lb_endpoints:
        - endpoint:
            address: {{- include "safelight.socketAddress" (list "127.0.0.1" 9901) | nindent 14 }}
{{- end -}}

{{/* Certificates come from files that Envoy watches, so that a renewed one needs no restart. */}}
{{- define "safelight.downstreamTls" -}}
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
  require_client_certificate: {{ .Values.envoy.tls.clientAuthorities }}
  common_tls_context:
    alpn_protocols: [h2, http/1.1]
    tls_certificate_sds_secret_configs:
      - {{- include "safelight.fileSecret" "callers-certificate" | nindent 8 }}
    {{- if .Values.envoy.tls.clientAuthorities }}
    validation_context_sds_secret_config: {{- include "safelight.fileSecret" "callers-authorities" | nindent 6 }}
    {{- end }}
{{- end -}}

{{- define "safelight.upstreamTls" -}}
name: envoy.transport_sockets.tls
typed_config:
  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
  sni: {{ include "safelight.replicasHost" . }}
  common_tls_context:
    alpn_protocols: [h2] # health checks set none of their own, and gRPC refuses that
    {{- if .Values.service.tls.clientAuthorities }}
    tls_certificate_sds_secret_configs:
      - {{- include "safelight.fileSecret" "replicas-certificate" | nindent 8 }}
    {{- end }}
    combined_validation_context:
      default_validation_context:
        match_typed_subject_alt_names:
          - {san_type: DNS, matcher: {exact: {{ include "safelight.replicasHost" . }}}}
      validation_context_sds_secret_config: {{- include "safelight.fileSecret" "replicas-authorities" | nindent 8 }}
{{- end -}}

{{- define "safelight.fileSecret" -}}
name: {{ . }}
sds_config:
  path_config_source: {path: /etc/envoy/config/{{ . }}.yaml}
  resource_api_version: V3
{{- end -}}

{{/* File of one secret. Takes (list NAME FOLDER): authorities, or a certificate with its key. */}}
{{- define "safelight.secretFile" -}}
{{- $name := index . 0 -}}
{{- $folder := index . 1 -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: {{ $name }}
    {{- if hasSuffix "-authorities" $name }}
    validation_context:
      trusted_ca: {filename: {{ $folder }}/ca.crt}
      watched_directory: {path: {{ $folder }}}
    {{- else }}
    tls_certificate:
      certificate_chain: {filename: {{ $folder }}/tls.crt}
      private_key: {filename: {{ $folder }}/tls.key}
      watched_directory: {path: {{ $folder }}}
    {{- end }}
{{- end -}}

{{/* All files of the ConfigMap. */}}
{{- define "safelight.envoyFiles" -}}
envoy.yaml: |
  {{- include "safelight.envoyConfig" . | nindent 2 }}
{{- if .Values.envoy.tls.existingSecret }}
callers-certificate.yaml: |
  {{- include "safelight.secretFile" (list "callers-certificate" "/etc/envoy/callers-tls") | nindent 2 }}
{{- if .Values.envoy.tls.clientAuthorities }}
callers-authorities.yaml: |
  {{- include "safelight.secretFile" (list "callers-authorities" "/etc/envoy/callers-tls") | nindent 2 }}
{{- end }}
{{- end }}
{{- if .Values.service.tls.existingSecret }}
{{- if .Values.service.tls.clientAuthorities }}
replicas-certificate.yaml: |
  {{- include "safelight.secretFile" (list "replicas-certificate" "/etc/envoy/replicas-tls") | nindent 2 }}
{{- end }}
replicas-authorities.yaml: |
  {{- include "safelight.secretFile" (list "replicas-authorities" "/etc/envoy/replicas-tls") | nindent 2 }}
{{- end }}
drain.sh: |
  {{- .Files.Get "files/drain.sh" | nindent 2 }}
{{- end -}}
