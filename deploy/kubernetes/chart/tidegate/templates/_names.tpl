{{- define "tidegate.labels" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: tidegate
{{- end }}
{{- define "tidegate.name" -}}
{{ .root.Release.Name }}-{{ .component }}
{{- end }}
{{- /* Settings as environment variables. */ -}}
{{- define "tidegate.env" -}}
{{- range $key, $value := .settings }}
{{- /* Numbers of YAML are floats to Helm, and 1000000 would come out as 1e+06. */ -}}
{{- $isWhole := and (kindIs "float64" $value) (eq (toString (floor $value)) (toString $value)) }}
{{- if kindIs "map" $value }}
- {name: TIDEGATE_{{ $.prefix }}_{{ upper $key }}, value: {{ toJson $value | quote }}}
{{- else }}
- {name: TIDEGATE_{{ $.prefix }}_{{ upper $key }}, value: {{ ternary (int64 $value) $value $isWhole | toString | quote }}}
{{- end }}
{{- end }}
{{- with .root.Values.otlpEndpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- define "tidegate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "tidegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
