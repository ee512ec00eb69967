#!/bin/sh
# gwctl-init: prepares what HAProxy and the Data Plane API of one pod share. It is the pod's init container.
#
# In:  two writable folders, and these variables, all of them optional:
#   GWCTL_DATA               /var/lib/gwctl   files: lives as long as the pod
#   GWCTL_RUN                /var/run/gwctl   sockets: best in memory
#   HAPROXY_MAXCONN          4000             connections that HAProxy takes at most
#   HAPROXY_FD_HARD_LIMIT    20000            file descriptors that it may count on; above 2 x maxconn + servers
#   HAPROXY_NBTHREAD         (one per core)   threads
#   HAPROXY_HARD_STOP_AFTER  30s              how long a worker that stops waits for its last connections
#   HAPROXY_LOG_LEVEL        info             least level that HAProxy logs
#   HAPROXY_METRICS_PORT     8405             /metrics and /healthz of HAProxy itself; 0: none
#   HAPROXY_IPV6             false            true: HAProxy's own port is open on IPv6 too
#   DATAPLANE_LOG_LEVEL      warning          least level that the Data Plane API logs
# Out: in GWCTL_DATA the folders below, `password`, `haproxy.cfg` and `dataplaneapi.yaml`, readable by this user only.
#
# Running it again is harmless: the password and HAProxy's configuration, which the Data Plane API rewrites, stay as
# they are, so that a container that starts anew finds what gwctl has stored last.
set -eu
umask 077

data=${GWCTL_DATA:-/var/lib/gwctl}
run=${GWCTL_RUN:-/var/run/gwctl}

fail() {
  echo "gwctl-init: $1" >&2
  exit 1
}

# value NAME DEFAULT PATTERN MEANING: a variable's value; everything that is not like PATTERN is refused
value() {
  eval "given=\${$1:-}"
  given=${given:-$2}
  [ "$(printf '%s\n' "$given" | wc -l)" -eq 1 ] && printf '%s\n' "$given" | grep -Eqx "$3" ||
    fail "$1 must be $4, but is '$given'"
  printf '%s' "$given"
}

# put FILE: writes a whole file or none
put() {
  cat > "$1.new"
  mv "$1.new" "$1"
}

levels='emerg|alert|crit|err|warning|notice|info|debug'
maxconn=$(value HAPROXY_MAXCONN 4000 '[1-9][0-9]{0,7}' 'a number above 0')
fd_hard_limit=$(value HAPROXY_FD_HARD_LIMIT 20000 '[1-9][0-9]{0,7}' 'a number above 0')
nbthread=$(value HAPROXY_NBTHREAD '' '([1-9][0-9]{0,3})?' 'a number above 0')
hard_stop_after=$(value HAPROXY_HARD_STOP_AFTER 30s '[1-9][0-9]*(ms|s|m|h|d)' 'a time such as 30s')
log_level=$(value HAPROXY_LOG_LEVEL info "$levels" "one of $levels")
metrics_port=$(value HAPROXY_METRICS_PORT 8405 '0|[1-9][0-9]{0,4}' 'a port, or 0 for none')
ipv6=$(value HAPROXY_IPV6 false 'true|false' 'true or false')
api_log_level=$(value DATAPLANE_LOG_LEVEL warning 'trace|debug|info|warning|error' 'trace, debug, info, warning or error')

haproxy=$(command -v haproxy) || fail "haproxy is not on PATH"
for folder in "$data" "$run"; do
  [ -d "$folder" ] && [ -w "$folder" ] || fail "$folder is not a folder that user $(id -u) may write to"
done
for name in maps ssl general spoe dataplane transactions spoe-transactions backups; do
  mkdir -p "$data/$name"
done

[ -s "$data/password" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | put "$data/password"

haproxy_cfg() {
  cat <<CFG
global
  stats socket $run/admin.sock mode 600 level admin
  maxconn $maxconn
  fd-hard-limit $fd_hard_limit
${nbthread:+  nbthread $nbthread
}  hard-stop-after $hard_stop_after
  log stdout format raw local0 $log_level

userlist dataplane
  user admin insecure-password $(cat "$data/password")

defaults unnamed_defaults_1
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
CFG
  [ "$metrics_port" -ne 0 ] || return 0
  cat <<CFG

frontend metrics
  mode http
  bind :$metrics_port
$([ "$ipv6" = false ] || echo "  bind :::$metrics_port v6only")
  monitor-uri /healthz
  http-request use-service prometheus-exporter if { path /metrics }
  http-request return status 404
CFG
}

[ -s "$data/haproxy.cfg" ] || haproxy_cfg | put "$data/haproxy.cfg"

# delayed_start_max: HAProxy may take its time, and starts at the same moment in the container beside.
# reload: the master's socket does the work, but the custom strategy wants commands to be named.
put "$data/dataplaneapi.yaml" <<YAML
config_version: 2
name: gwctl
dataplaneapi:
  scheme: [unix]
  socket_path: $run/dataplane.sock
  userlist:
    userlist: dataplane
  transaction:
    transaction_dir: $data/transactions
    backups_dir: $data/backups
    backups_number: 2
  resources:
    maps_dir: $data/maps
    ssl_certs_dir: $data/ssl
    general_storage_dir: $data/general
    dataplane_storage_dir: $data/dataplane
    spoe_dir: $data/spoe
    spoe_transaction_dir: $data/spoe-transactions
haproxy:
  config_file: $data/haproxy.cfg
  haproxy_bin: $haproxy
  master_runtime: $run/master.sock
  master_worker_mode: true
  delayed_start_max: 60s
  delayed_start_tick: 50ms
  reload:
    reload_delay: 1
    reload_strategy: custom
    reload_cmd: "true"
    restart_cmd: "true"
log_targets:
  - log_to: stdout
    log_level: $api_log_level
    log_types: [app]
YAML
