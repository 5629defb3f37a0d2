{{/*
TOML of a table. Helm's own toToml writes 8 as 8.0, which is no whole number to the settings.
Takes (list PATH TABLE): the path in TOML, empty for the top level, and a map. Leaves nulls out.
*/}}
{{- define "safelight.toml" -}}
{{- $path := index . 0 -}}
{{- $table := index . 1 -}}
{{- range $key, $value := $table -}}
{{- if not (or (kindIs "invalid" $value) (kindIs "map" $value) (eq (include "safelight.isTableList" $value) "true")) }}
{{ include "safelight.tomlKey" $key }} = {{ include "safelight.tomlValue" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := $table -}}
{{- $inner := include "safelight.tomlKey" $key -}}
{{- if $path -}}{{- $inner = printf "%s.%s" $path $inner -}}{{- end -}}
{{- if kindIs "map" $value }}

[{{ $inner }}]
{{- include "safelight.toml" (list $inner $value) }}
{{- else if eq (include "safelight.isTableList" $value) "true" -}}
{{- range $value }}

[[{{ $inner }}]]
{{- include "safelight.toml" (list $inner .) }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "safelight.isTableList" -}}
{{- if and (kindIs "slice" .) (gt (len .) 0) -}}
{{- $all := true -}}
{{- range . -}}{{- if not (kindIs "map" .) -}}{{- $all = false -}}{{- end -}}{{- end -}}
{{- $all -}}
{{- end -}}
{{- end -}}

{{- define "safelight.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- end -}}

{{- define "safelight.tomlValue" -}}
{{- if kindIs "float64" . -}}
{{- if and (eq . (floor .)) (lt (maxf . (mulf . -1.0)) 1e15) -}}{{ printf "%d" (int64 .) }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- else if kindIs "slice" . -}}
[{{- range $index, $each := . }}{{ if $index }}, {{ end }}{{ include "safelight.tomlValue" $each }}{{ end -}}]
{{- else if kindIs "map" . -}}
{ {{- $first := true -}}{{- range $key, $each := . }}{{ if not $first }}, {{ end }}{{ include "safelight.tomlKey" $key }} = {{ include "safelight.tomlValue" $each }}{{ $first = false }}{{ end -}} }
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- end -}}
