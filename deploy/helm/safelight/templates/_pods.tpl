{{/* Non-root, without a token of the cluster and without service links. Takes (list ROOT UID). */}}
{{- define "safelight.podBasics" -}}
{{- $root := index . 0 -}}
{{- $uid := index . 1 -}}
serviceAccountName: {{ include "safelight.serviceAccountName" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $uid }}
  runAsGroup: {{ $uid }}
  fsGroup: {{ $uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "safelight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where the pods of a part run. Takes (list ROOT PART VALUES). */}}
{{- define "safelight.placement" -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $constraints := $values.topologySpreadConstraints -}}
{{- if not $constraints -}}
{{- $constraints = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- $pods := dict "matchLabels" (include "safelight.selector" (list (index . 0) (index . 1)) | fromYaml) }}
topologySpreadConstraints:
{{- range $constraints }}
  - {{- ternary . (merge (dict "labelSelector" $pods) .) (hasKey . "labelSelector") | toYaml | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Metadata of an object. Takes (list ROOT PART SUFFIX ANNOTATIONS), and LABELS if there are more. */}}
{{- define "safelight.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "safelight.fullname" $root }}{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "safelight.labels" (list $root (index . 1)) | nindent 2 }}
  {{- if gt (len .) 4 }}{{ with index . 4 }}{{ toYaml . | nindent 2 }}{{ end }}{{ end }}
{{- $annotations := merge (dict) (default (dict) (index . 3)) $root.Values.commonAnnotations }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "safelight.podDisruptionBudget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "safelight.metadata" (list $root (index . 1) (index . 2) dict) | nindent 2 }}
spec:
  maxUnavailable: {{ (index . 3).maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow # or replicas that cannot start would keep nodes from draining
  selector:
    matchLabels: {{- include "safelight.selector" (list $root (index . 1)) | nindent 6 }}
{{- end -}}

{{- define "safelight.dnsRule" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}
