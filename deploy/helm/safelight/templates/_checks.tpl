{{/* Fails with all combinations of values that cannot work, each with its remedy. */}}
{{- define "safelight.checks" -}}
{{- $problems := list -}}
{{- range list "safelight.callerProblems" "safelight.ownedProblems" "safelight.replicaProblems" "safelight.timeProblems" "safelight.fileProblems" "safelight.deviceProblems" "safelight.redisProblems" "safelight.metricProblems" -}}
{{- range splitList "\n" (include . $) -}}
{{- with trim . -}}{{- $problems = append $problems . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{- define "safelight.callerProblems" -}}
{{- if not (or .Values.tokens.existingSecret .Values.service.tls.clientAuthorities (eq (dig "allow_anonymous" false .Values.config) true)) }}
The service does not start without knowing its callers: set tokens.existingSecret, or service.tls.clientAuthorities, or config.allow_anonymous: true where the network keeps strangers out.
{{- end }}
{{- if and .Values.service.tls.clientAuthorities (not .Values.service.tls.existingSecret) }}
service.tls.clientAuthorities needs service.tls.existingSecret, with tls.crt, tls.key and ca.crt.
{{- end }}
{{- if and .Values.envoy.tls.clientAuthorities (not .Values.envoy.tls.existingSecret) }}
envoy.tls.clientAuthorities needs envoy.tls.existingSecret, with tls.crt, tls.key and ca.crt.
{{- end }}
{{- if and .Values.gateway.enabled .Values.gateway.targetAuthorities.existingSecret (not (include "safelight.entryTlsSecret" .)) }}
gateway.targetAuthorities is for TLS, but {{ ternary "envoy.tls" "service.tls" .Values.envoy.enabled }}.existingSecret is not set.
{{- end }}
{{- if and .Values.gateway.enabled (ternary .Values.envoy.tls.clientAuthorities .Values.service.tls.clientAuthorities .Values.envoy.enabled) }}
The chart's gateway shows no certificate, but callers need one: set {{ ternary "envoy.tls" "service.tls" .Values.envoy.enabled }}.clientAuthorities: false, or run the gateway on its own.
{{- end }}
{{- end -}}

{{- define "safelight.ownedProblems" -}}
{{- range $key, $instead := dict "listen" "service.port" "tokens_file" "tokens" "tls" "service.tls" }}
{{- if hasKey $.Values.config $key }}
config.{{ $key }} is set by the chart: use {{ $instead }}.
{{- end }}
{{- end }}
{{- if hasKey (default (dict) .Values.config.telemetry) "prometheus_listen" }}
config.telemetry.prometheus_listen is set by the chart: use metrics.
{{- end }}
{{- range $table := list "cache" "fleet" }}
{{- if hasKey (default (dict) (get $.Values.config $table)) "redis_url" }}
config.{{ $table }}.redis_url may hold a password, and config is no secret: use redis.external.existingSecret.
{{- end }}
{{- end }}
{{- range $key, $instead := dict "listen" "gateway.service" "target" "entry" "tls" "gateway.tls" "target_tls" "gateway.targetAuthorities" }}
{{- if hasKey $.Values.gateway.config $key }}
gateway.config.{{ $key }} is set by the chart: use {{ $instead }}.
{{- end }}
{{- end }}
{{- if hasKey .Values.gateway.config "token" }}
gateway.config.token is a secret, and config is not: use gateway.extraEnv with SAFELIGHT_GATEWAY_TOKEN.
{{- end }}
{{- end -}}

{{- define "safelight.replicaProblems" -}}
{{- $scaling := .Values.autoscaling -}}
{{- $isScaled := ne $scaling.kind "none" -}}
{{- $most := ternary $scaling.maxReplicas .Values.service.replicas $isScaled -}}
{{- if and (gt (int $most) 1) (not .Values.envoy.enabled) (not .Values.service.ownBalancer) }}
Without Envoy, a cancel reaches the wrong one of {{ $most }} replicas: set envoy.enabled, or service.ownBalancer where another proxy routes by x-generation-id.
{{- end }}
{{- if and $isScaled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
autoscaling.minReplicas ({{ $scaling.minReplicas }}) exceeds maxReplicas ({{ $scaling.maxReplicas }}).
{{- end }}
{{- if and $isScaled (not .Values.metrics.enabled) }}
autoscaling.kind {{ $scaling.kind }} reads the service's metrics: set metrics.enabled.
{{- end }}
{{- if and (eq $scaling.kind "keda") (not $scaling.keda.prometheusUrl) }}
autoscaling.kind keda needs autoscaling.keda.prometheusUrl, such as http://prometheus.monitoring:9090.
{{- end }}
{{- if eq (toString (dig "backend" "local" .Values.config)) "ray" }}
The chart runs engines in its own pods: for config.backend: ray use deploy/ray.
{{- end }}
{{- $hasRedis := or .Values.redis.enabled .Values.redis.external.existingSecret }}
{{- if and .Values.service.tls.existingSecret $hasRedis (has "fleet.redis_url" .Values.redis.settings) (not (dig "fleet" "server_name" "" .Values.config)) }}
The certificates of service.tls name no replica's address: set config.fleet.server_name to a name in them, or redis.settings: [cache.redis_url].
{{- end }}
{{- $rolling := default (dict) .Values.service.strategy.rollingUpdate }}
{{- if and (eq (toString (dig "maxSurge" "" $rolling)) "0") (eq (toString (dig "maxUnavailable" "" $rolling)) "0") }}
service.strategy allows neither one replica more nor one less: set maxSurge or maxUnavailable.
{{- end }}
{{- end -}}

{{- define "safelight.timeProblems" -}}
{{- $given := .Values.service.terminationGracePeriodSeconds -}}
{{- $grace := dig "grace_s" 30 .Values.config -}}
{{- if and (not (kindIs "invalid" $given)) (lt (float64 $given) (addf $grace 10)) }}
service.terminationGracePeriodSeconds ({{ $given }}) must exceed config.grace_s ({{ $grace }}) by 10 seconds, or Kubernetes kills running generations.
{{- end }}
{{- $given = .Values.gateway.terminationGracePeriodSeconds -}}
{{- $grace = dig "grace_s" 30 .Values.gateway.config -}}
{{- if and (not (kindIs "invalid" $given)) (lt (float64 $given) (addf $grace 10)) }}
gateway.terminationGracePeriodSeconds ({{ $given }}) must exceed gateway.config.grace_s ({{ $grace }}) by 10 seconds.
{{- end }}
{{- $heartbeat := dig "heartbeat_s" 5 .Values.config }}
{{- if and .Values.envoy.enabled (ge (float64 $heartbeat) 50.0) }}
config.heartbeat_s ({{ $heartbeat }}) must be below 50, as Envoy cuts streams that are silent for 60 s.
{{- end }}
{{- end -}}

{{/* The root file system is read-only: what the service writes needs a volume. */}}
{{- define "safelight.fileProblems" -}}
{{- $folders := list "/home/safelight" "/tmp" "~" -}}
{{- range .Values.service.extraVolumeMounts -}}{{- $folders = append $folders .mountPath -}}{{- end -}}
{{- range list (list "cache" "folder") (list "batching" "profiles_file") (list "compile_cache") -}}
{{- $table := ternary (default (dict) (get $.Values.config (first .))) $.Values.config (gt (len .) 1) -}}
{{- $path := toString (default "" (get $table (last .))) -}}
{{- $isWritable := eq $path "" -}}
{{- range $folders -}}
{{- if or (eq $path .) (hasPrefix (printf "%s/" (trimSuffix "/" .)) $path) -}}{{- $isWritable = true -}}{{- end -}}
{{- end -}}
{{- if not $isWritable }}
config.{{ join "." . }} ({{ $path }}) is not in a writable volume: put it below /home/safelight/.cache, or mount a volume there by service.extraVolumes and extraVolumeMounts.
{{- end }}
{{- end -}}
{{- end -}}

{{- define "safelight.deviceProblems" -}}
{{- $count := int .Values.service.gpu.count -}}
{{- range default (list) .Values.config.models -}}
{{- $device := toString (default "auto" .device) -}}
{{- if hasPrefix "cuda" $device -}}
{{- $number := int (trimPrefix "cuda:" (ternary "cuda:0" $device (eq $device "cuda"))) -}}
{{- if ge $number $count }}
config.models: {{ .name }} is on {{ $device }}, but service.gpu.count is {{ $count }}.
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "safelight.redisProblems" -}}
{{- if and .Values.redis.enabled .Values.redis.external.existingSecret }}
redis.enabled and redis.external.existingSecret exclude each other.
{{- end }}
{{- if and .Values.redis.auth.existingSecret (not .Values.redis.enabled) }}
redis.auth is for the chart's Redis: set redis.enabled, or put the password into the URL of redis.external.
{{- end }}
{{- end -}}

{{- define "safelight.metricProblems" -}}
{{- range list "serviceMonitor" "alerts" -}}
{{- if and (index $.Values.metrics .).enabled (not $.Values.metrics.enabled) }}
metrics.{{ . }}.enabled needs metrics.enabled.
{{- end -}}
{{- end -}}
{{- end -}}
