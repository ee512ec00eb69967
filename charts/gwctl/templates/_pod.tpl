{{/*
The pod, the same for Deployment and DaemonSet.

The order of its end: all containers are told at once. gwctl counts shutdownDelaySeconds itself, giving up the lead at
once; the others sleep as long before they get their signal, so that all three work while proxies and load balancers
learn that the pod goes. Then HAProxy stops softly: new connections go elsewhere, those it has may finish.
*/}}

{{- define "gwctl.probe" -}}
{{- merge .handler .timing | toYaml }}
{{- end }}

{{/*
gwctl stops being ready as soon as it is told to end, for load balancers that ask it. Kubernetes knows anyway that the pod
ends, and would rather use an ending pod that is ready than none: so it learns of this only when the delay is over.
*/}}
{{- define "gwctl.readinessTiming" -}}
{{- $period := int (default 10 .Values.gwctl.readinessProbe.periodSeconds) }}
{{- $threshold := add 2 (div (int .Values.shutdownDelaySeconds) $period) }}
{{- merge .Values.gwctl.readinessProbe (dict "failureThreshold" (max 3 $threshold)) | toYaml }}
{{- end }}

{{- define "gwctl.preStop" -}}
{{- if gt (int .) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int . }}
{{- end }}
{{- end }}

{{- define "gwctl.pod" -}}
{{- include "gwctl.validate" . }}
{{- $values := .Values }}
{{- $haproxyImage := include "gwctl.image" (dict "root" . "image" $values.haproxy.image) }}
{{- $delay := int $values.shutdownDelaySeconds }}
{{- $podSecurityContext := deepCopy (default dict $values.podSecurityContext) }}
{{- $haproxySecurityContext := deepCopy (default dict $values.securityContext) }}
{{- if and (eq (include "gwctl.gatewayServiceType" .) "none") (not $values.hostNetwork) }}
{{- /* Gateways' own ports, 80 and 443 mostly, in a network that is the pod's alone. */}}
{{- $_ := set $podSecurityContext "sysctls" (concat (default list $podSecurityContext.sysctls) (list (dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0"))) }}
{{- end }}
{{- if $values.privilegedPorts }}
{{- $_ := mergeOverwrite $podSecurityContext (dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "fsGroup" 0) }}
{{- $_ := mergeOverwrite $haproxySecurityContext (dict "capabilities" (dict "add" (list "NET_BIND_SERVICE"))) }}
{{- end }}
metadata:
  labels:
    {{- $labels := merge (include "gwctl.labels" . | fromYaml) (default dict $values.podLabels) }}
    {{- omit $labels "helm.sh/chart" | toYaml | nindent 4 }}
  annotations:
    {{- $checksum := dict "checksum/config" (include "gwctl.config" . | sha256sum) }}
    {{- $default := dict "kubectl.kubernetes.io/default-container" "gwctl" }}
    {{- merge $checksum (default dict $values.podAnnotations) $default | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ include "gwctl.serviceAccountName" . | quote }}
  # The containers that face the network get no token; the volume `token` below gives it to gwctl.
  automountServiceAccountToken: false
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  enableServiceLinks: false
  {{- with $podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "gwctl.terminationGracePeriodSeconds" . }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.affinity }}
  affinity:
    {{- toYaml $values.affinity | nindent 4 }}
  {{- else if eq $values.kind "Deployment" }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "gwctl.selectorLabels" . | nindent 16 }}
  {{- end }}
  {{- with $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "gwctl.selectorLabels" $ | fromYaml)) }}
    - {{- ternary . (merge (deepCopy .) $own) (hasKey . "labelSelector") | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  initContainers:
    # Writes the first haproxy.cfg, the Data Plane API's configuration and a password that only this pod knows.
    - name: init
      image: {{ $haproxyImage | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [gwctl-init]
      env:
        - name: HAPROXY_MAXCONN
          value: {{ int $values.haproxy.maxConnections | quote }}
        # Two for each connection, and room for servers, which HAProxy counts too.
        - name: HAPROXY_FD_HARD_LIMIT
          value: {{ add (mul 2 (int $values.haproxy.maxConnections)) 12000 | quote }}
        {{- if $values.haproxy.threads }}
        - name: HAPROXY_NBTHREAD
          value: {{ int $values.haproxy.threads | quote }}
        {{- else if dig "limits" "cpu" "" (default dict $values.haproxy.resources) }}
        - name: HAPROXY_NBTHREAD
          valueFrom:
            resourceFieldRef:
              containerName: haproxy
              resource: limits.cpu
        {{- end }}
        - name: HAPROXY_HARD_STOP_AFTER
          value: {{ printf "%ds" (int $values.haproxy.hardStopAfterSeconds) }}
        - name: HAPROXY_LOG_LEVEL
          value: {{ $values.haproxy.logLevel }}
        - name: HAPROXY_METRICS_PORT
          value: {{ int $values.haproxy.metricsPort | quote }}
        - name: HAPROXY_IPV6
          value: {{ $values.ipv6 | quote }}
        - name: DATAPLANE_LOG_LEVEL
          value: {{ $values.dataplane.logLevel }}
        {{- with $values.haproxy.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.haproxy.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/gwctl
        - name: run
          mountPath: /var/run/gwctl
  containers:
    - name: gwctl
      image: {{ include "gwctl.image" (dict "root" . "image" $values.gwctl.image) | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        - run
        - --config=/etc/gwctl/gwctl.yaml
        {{- with $values.gwctl.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: GWCTL_POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: GWCTL_IDENTITY
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- with $values.gwctl.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: metrics
          containerPort: {{ int $values.gwctl.metricsPort }}
      startupProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "httpGet" (dict "path" "/livez" "port" "metrics")) "timing" $values.gwctl.startupProbe) | nindent 8 }}
      livenessProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "httpGet" (dict "path" "/livez" "port" "metrics")) "timing" $values.gwctl.livenessProbe) | nindent 8 }}
      readinessProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "httpGet" (dict "path" "/readyz" "port" "metrics")) "timing" (include "gwctl.readinessTiming" . | fromYaml)) | nindent 8 }}
      {{- with $values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.gwctl.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/gwctl
          readOnly: true
        - name: data
          mountPath: /var/lib/gwctl
          readOnly: true
        - name: run
          mountPath: /var/run/gwctl
          readOnly: true
        - name: token
          mountPath: /var/run/secrets/kubernetes.io/serviceaccount
          readOnly: true
    - name: haproxy
      image: {{ $haproxyImage | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [haproxy, -W, -S, /var/run/gwctl/master.sock, -f, /var/lib/gwctl/haproxy.cfg]
      env:
        # The sockets by which HAProxy reaches itself, told apart from those of other releases on a node (hostNetwork).
        - name: GWCTL_SOCKETS
          value: {{ printf "abns@gwctl-%s" (include "gwctl.clusterName" . | sha256sum | trunc 16) | quote }}
        {{- with $values.haproxy.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: haproxy-metrics
          containerPort: {{ int $values.haproxy.metricsPort }}
      startupProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "httpGet" (dict "path" "/healthz" "port" "haproxy-metrics")) "timing" $values.haproxy.startupProbe) | nindent 8 }}
      {{- /* A HAProxy that has all the connections that it may have answers no request for /healthz; it is well. */}}
      livenessProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "tcpSocket" (dict "port" "haproxy-metrics")) "timing" $values.haproxy.livenessProbe) | nindent 8 }}
      readinessProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "tcpSocket" (dict "port" "haproxy-metrics")) "timing" $values.haproxy.readinessProbe) | nindent 8 }}
      {{- include "gwctl.preStop" $delay | nindent 6 }}
      {{- with $haproxySecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.haproxy.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        # HAProxy only reads its files; the Data Plane API writes them.
        - name: data
          mountPath: /var/lib/gwctl
          readOnly: true
        - name: run
          mountPath: /var/run/gwctl
    - name: dataplane
      image: {{ $haproxyImage | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [gwctl-dataplane]
      {{- with $values.dataplane.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      startupProbe:
        {{- include "gwctl.probe" (dict "handler" (dict "exec" (dict "command" (list "test" "-S" "/var/run/gwctl/dataplane.sock"))) "timing" $values.dataplane.startupProbe) | nindent 8 }}
      {{- /* A little longer than gwctl, which has work to end. */}}
      {{- include "gwctl.preStop" (ternary (add $delay 2) 0 (gt $delay 0)) | nindent 6 }}
      {{- with $values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.dataplane.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/gwctl
        - name: run
          mountPath: /var/run/gwctl
  volumes:
    - name: config
      configMap:
        name: {{ include "gwctl.fullname" . | quote }}
    - name: data
      emptyDir: {}
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    - name: token
      projected:
        sources:
          - serviceAccountToken:
              path: token
              expirationSeconds: 3607
          - configMap:
              name: kube-root-ca.crt
              items:
                - key: ca.crt
                  path: ca.crt
          - downwardAPI:
              items:
                - path: namespace
                  fieldRef:
                    fieldPath: metadata.namespace
{{- end }}
