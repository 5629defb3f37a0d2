{{/* Settings of the service: `config`, and the chart's own. */}}
{{- define "safelight.serviceSettings" -}}
{{- $own := dict "listen" (printf "0.0.0.0:%d" (int .Values.service.port)) -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $own "telemetry" (dict "prometheus_listen" (printf "0.0.0.0:%d" (int .Values.metrics.port))) -}}
{{- end -}}
{{- if .Values.tokens.existingSecret -}}
{{- $_ := set $own "tokens_file" (printf "/etc/safelight/tokens/%s" .Values.tokens.key) -}}
{{- end -}}
{{- if .Values.service.tls.existingSecret -}}
{{- $tls := dict "certificate" "/etc/safelight/tls/tls.crt" "private_key" "/etc/safelight/tls/tls.key" -}}
{{- if .Values.service.tls.clientAuthorities -}}
{{- $_ := set $tls "client_authorities" "/etc/safelight/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- include "safelight.toml" (list "" (mergeOverwrite (deepCopy .Values.config) $own)) | trim -}}
{{- end -}}

{{/* Settings of the gateway: `gateway.config`, and the chart's own. */}}
{{- define "safelight.gatewaySettings" -}}
{{- $own := dict "listen" "0.0.0.0:8080" "target" (printf "%s.%s.svc.%s:%d" (include "safelight.fullname" .) .Release.Namespace .Values.clusterDomain (int .Values.entry.port)) -}}
{{- if .Values.gateway.tls.existingSecret -}}
{{- $_ := set $own "tls" (dict "certificate" "/etc/safelight/tls/tls.crt" "private_key" "/etc/safelight/tls/tls.key") -}}
{{- end -}}
{{- if include "safelight.entryTlsSecret" . -}}
{{- $authorities := dict -}}
{{- if .Values.gateway.targetAuthorities.existingSecret -}}
{{- $authorities = dict "authorities" "/etc/safelight/target/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "target_tls" $authorities -}}
{{- end -}}
{{- include "safelight.toml" (list "" (mergeOverwrite (deepCopy .Values.gateway.config) $own)) | trim -}}
{{- end -}}

{{/* Seconds between the signal to stop and the kill. Takes (list SETTINGS GIVEN). */}}
{{- define "safelight.terminationSeconds" -}}
{{- $grace := dig "grace_s" 30 (index . 0) -}}
{{- if kindIs "invalid" (index . 1) -}}{{ add (ceil $grace) 15 }}{{- else -}}{{ int (index . 1) }}{{- end -}}
{{- end -}}

{{/* Environment that gives the settings of `redis.settings` the URL of Redis. */}}
{{- define "safelight.redisEnv" -}}
{{- $external := .Values.redis.external.existingSecret -}}
{{- if and .Values.redis.enabled .Values.redis.auth.existingSecret }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.redis.auth.existingSecret }}, key: {{ .Values.redis.auth.key }}}
{{- end }}
{{- if or .Values.redis.enabled $external }}
{{- if has "fleet.redis_url" .Values.redis.settings }}
- name: POD_IP
  valueFrom:
    fieldRef: {fieldPath: status.podIP}
- name: SAFELIGHT_FLEET__ADVERTISE
  value: $(POD_IP):{{ .Values.service.port }}
{{- end }}
{{- range .Values.redis.settings }}
- name: SAFELIGHT_{{ . | replace "." "__" | upper }}
{{- if $external }}
  valueFrom:
    secretKeyRef: {name: {{ $external }}, key: {{ $.Values.redis.external.key }}}
{{- else }}
  value: redis://{{ if $.Values.redis.auth.existingSecret }}:$(REDIS_PASSWORD)@{{ end }}{{ include "safelight.fullname" $ }}-redis:6379/0
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
