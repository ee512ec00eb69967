#!/bin/sh
# gwctl-dataplane: the Data Plane API of a pod, as gwctl-init has set it up. A socket that a crash has left would be
# in its way, and nobody but this user may use the new one.
#
# The image's stop signal is HAProxy's, SIGUSR1, which the Data Plane API takes for something else. So this stays above it
# and passes every wish to stop on as SIGTERM.
set -eu
umask 077
rm -f "${GWCTL_RUN:-/var/run/gwctl}/dataplane.sock"
api='' stopping=''
stop() {
  stopping=yes
  [ -z "$api" ] || kill -TERM "$api" 2>/dev/null || :
}
trap stop USR1 TERM INT
dataplaneapi -f "${GWCTL_DATA:-/var/lib/gwctl}/dataplaneapi.yaml" &
api=$!
[ -z "$stopping" ] || stop
status=0
wait "$api" || status=$?
# A signal ends `wait` before the process has ended.
while kill -0 "$api" 2>/dev/null; do
  status=0
  wait "$api" || status=$?
done
exit "$status"
