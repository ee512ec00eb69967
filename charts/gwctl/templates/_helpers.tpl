{{/* Names. The longest suffix of ours is `-addresses`, and a Service's name has at most 63 characters. */}}

{{- define "gwctl.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gwctl.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" }}
{{- /* A Service's name cannot begin with a digit, a release's can. */}}
{{- if regexMatch "^[0-9]" $full }}
{{- $full = printf "gwctl-%s" $full }}
{{- end }}
{{- end }}
{{- if gt (len $full) 50 }}
{{- $full = printf "%s-%s" ($full | trunc 41 | trimSuffix "-") (sha256sum $full | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{/* For objects outside of the release's namespace: no other release has this name, since neither part has a colon. */}}
{{- define "gwctl.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "gwctl.fullname" .) }}
{{- end }}

{{- define "gwctl.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gwctl.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gwctl.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gwctl.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "gwctl.labels" -}}
{{- $ours := dict
      "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63)
      "app.kubernetes.io/version" (.Chart.AppVersion | trunc 63)
      "app.kubernetes.io/managed-by" .Release.Service }}
{{- $ours = merge (include "gwctl.selectorLabels" . | fromYaml) $ours }}
{{- merge $ours (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{/* metadata of an object: (dict "root" . "suffix" "-x" "labels" {…} "annotations" {…}), all but root optional. */}}
{{- define "gwctl.metadata" -}}
name: {{ default (printf "%s%s" (include "gwctl.fullname" .root) (default "" .suffix)) .name | quote }}
{{- if not .cluster }}
namespace: {{ default .root.Release.Namespace .namespace | quote }}
{{- end }}
labels:
  {{- merge (include "gwctl.labels" .root | fromYaml) (default dict .labels) | toYaml | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image: (dict "root" . "image" .Values.gwctl.image). */}}
{{- define "gwctl.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end }}
{{- end }}

{{- define "gwctl.gatewayServiceType" -}}
{{- default (ternary "none" "LoadBalancer" .Values.hostNetwork) .Values.gatewayService.type }}
{{- end }}

{{/* Whether the addresses of Gateways are those of this release's own pods: the name of the Service, else nothing. */}}
{{- define "gwctl.addressesService" -}}
{{- if and (eq (include "gwctl.gatewayServiceType" .) "none") (not .Values.publishService) }}
{{- include "gwctl.fullname" . }}-addresses
{{- end }}
{{- end }}

{{- define "gwctl.publishService" -}}
{{- with include "gwctl.addressesService" . }}
{{- printf "%s/%s" $.Release.Namespace . }}
{{- else }}
{{- default "" .Values.publishService }}
{{- end }}
{{- end }}

{{/* gwctl's configuration file. */}}
{{- define "gwctl.config" -}}
{{- $config := dict
      "source" "kubernetes"
      "gateway-controller-name" .Values.controllerName
      "dataplane-url" "unix:///var/run/gwctl/dataplane.sock"
      "dataplane-username" "admin"
      "dataplane-password-file" "/var/lib/gwctl/password"
      "http-slots" (int .Values.gwctl.httpSlots)
      "tcp-slots" (int .Values.gwctl.tcpSlots)
      "http-listeners" (int .Values.gwctl.httpListeners)
      "https-listeners" (int .Values.gwctl.httpsListeners)
      "tls-listeners" (int .Values.gwctl.tlsListeners)
      "tcp-listeners" (int .Values.gwctl.tcpListeners)
      "ipv6" .Values.ipv6
      "http3" .Values.http3
      "resync-interval" (int .Values.gwctl.resyncIntervalSeconds)
      "metrics-address" (printf ":%d" (int .Values.gwctl.metricsPort))
      "log-level" .Values.gwctl.logLevel
      "log-format" .Values.gwctl.logFormat
      "lease-name" (include "gwctl.fullname" .)
      "gateway-service-type" (include "gwctl.gatewayServiceType" .)
      "gateway-service-aliases" .Values.gatewayService.aliases
      "cluster-domain" .Values.clusterDomain
      "gateway-service-selector" (include "gwctl.selectorLabels" . | fromYaml)
      "shutdown-delay" (int .Values.shutdownDelaySeconds) }}
{{- with .Values.namespaces }}{{ $_ := set $config "namespaces" . }}{{ end }}
{{- with .Values.proxyProtocolFrom }}{{ $_ := set $config "proxy-protocol-from" . }}{{ end }}
{{- with .Values.gatewayService.annotations }}{{ $_ := set $config "gateway-service-annotations" . }}{{ end }}
{{- with .Values.gatewayService.externalTrafficPolicy }}{{ $_ := set $config "gateway-service-external-traffic-policy" . }}{{ end }}
{{- with include "gwctl.publishService" . }}{{ $_ := set $config "publish-service" . }}{{ end }}
{{- mergeOverwrite $config (default dict .Values.gwctl.config) | toYaml }}
{{- end }}

{{- define "gwctl.terminationGracePeriodSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add (int .Values.shutdownDelaySeconds) (int .Values.haproxy.hardStopAfterSeconds) 5 }}
{{- else }}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}

{{/* gwctl's options on which roles, pods or other objects depend, each with the value that sets it for all of them, if any. */}}
{{- define "gwctl.ownOptions" -}}
source: ""
gateway-controller-name: controllerName
dataplane-url: ""
dataplane-username: ""
dataplane-password: ""
dataplane-password-file: ""
namespaces: namespaces
pod-namespace: ""
identity: ""
lease-name: fullnameOverride
gateway-service-type: gatewayService.type
gateway-service-aliases: gatewayService.aliases
publish-service: publishService
shutdown-delay: shutdownDelaySeconds
ipv6: ipv6
http3: http3
metrics-address: gwctl.metricsPort
{{- end }}

{{- define "gwctl.validateOptions" -}}
{{- $given := dict }}
{{- range $key, $_ := default dict .Values.gwctl.config }}
{{- $_ := set $given ($key | replace "_" "-") "gwctl.config" }}
{{- end }}
{{- range default list .Values.gwctl.extraArgs }}
{{- $_ := set $given (trimPrefix "--" . | splitList "=" | first) "gwctl.extraArgs" }}
{{- end }}
{{- range default list .Values.gwctl.extraEnv }}
{{- if hasPrefix "GWCTL_" .name }}
{{- $_ := set $given (trimPrefix "GWCTL_" .name | lower | replace "_" "-") "gwctl.extraEnv" }}
{{- end }}
{{- end }}
{{- range $option, $value := include "gwctl.ownOptions" . | fromYaml }}
{{- if hasKey $given $option }}
{{- $instead := ternary (printf "use the value %s" $value) "the chart sets it" (ne $value "") }}
{{- fail (printf "%s: roles, pods or other objects of the chart depend on %s; %s" (get $given $option) $option $instead) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "gwctl.validate" -}}
{{- $values := .Values }}
{{- include "gwctl.validateOptions" . }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+$" $values.controllerName) }}
{{- fail (printf "controllerName must be a DNS name, '/' and a path, such as example.com/gateways, but is '%s'" $values.controllerName) }}
{{- end }}
{{- if and $values.autoscaling.enabled (eq $values.kind "DaemonSet") }}
{{- fail "autoscaling.enabled: a DaemonSet has one pod for each node and cannot be scaled; use kind: Deployment" }}
{{- end }}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas must not be above autoscaling.maxReplicas" }}
{{- end }}
{{- if and $values.autoscaling.enabled (not $values.autoscaling.metrics) (not (dig "requests" "cpu" "" (default dict $values.haproxy.resources))) }}
{{- fail "autoscaling.enabled: the use of CPU is measured against haproxy.resources.requests.cpu, which is not set" }}
{{- end }}
{{- with $values.podDisruptionBudget }}
{{- $min := not (kindIs "invalid" .minAvailable) }}
{{- $max := not (kindIs "invalid" .maxUnavailable) }}
{{- if and .enabled $min $max }}
{{- fail "podDisruptionBudget: minAvailable and maxUnavailable exclude each other; set one of them to null" }}
{{- else if and .enabled (not $min) (not $max) }}
{{- fail "podDisruptionBudget: give minAvailable or maxUnavailable, or set enabled to false" }}
{{- end }}
{{- end }}
{{- if and $values.privilegedPorts (not $values.hostNetwork) }}
{{- fail "privilegedPorts: only with hostNetwork; in a network of its own a pod's user may listen on any port" }}
{{- end }}
{{- if eq (int $values.gwctl.metricsPort) (int $values.haproxy.metricsPort) }}
{{- fail "gwctl.metricsPort and haproxy.metricsPort must differ: the containers share one network" }}
{{- end }}
{{- range $key, $port := dict "gwctl.metricsPort" $values.gwctl.metricsPort "haproxy.metricsPort" $values.haproxy.metricsPort }}
{{- if and (ge (int $port) 20001) (le (int $port) 39999) }}
{{- fail (printf "%s must not be %d: HAProxy listens on 20001 to 39999 for Gateways" $key (int $port)) }}
{{- end }}
{{- end }}
{{- if and (eq $values.metrics.monitor.kind "ServiceMonitor") (not $values.metrics.service.enabled) }}
{{- fail "metrics.monitor.kind: a ServiceMonitor needs metrics.service.enabled; a PodMonitor does not" }}
{{- end }}
{{- if le (int (include "gwctl.terminationGracePeriodSeconds" .)) (add (int $values.shutdownDelaySeconds) 2) }}
{{- fail "terminationGracePeriodSeconds must be above shutdownDelaySeconds + 2" }}
{{- end }}
{{- with $values.publishService }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?$" .) }}
{{- fail (printf "publishService must be namespace/name, but is '%s'" .) }}
{{- end }}
{{- $namespace := splitList "/" . | first }}
{{- if and $values.namespaces (ne $namespace $.Release.Namespace) (not (has $namespace $values.namespaces)) }}
{{- fail (printf "publishService: namespaces must hold %s, else gwctl may not look at its endpoints" $namespace) }}
{{- end }}
{{- end }}
{{- end }}
