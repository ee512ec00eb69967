#!/bin/sh
# gwctl-dataplane: the Data Plane API of a pod, as gwctl-init has set it up. A socket that a crash has left would be
# in its way, and nobody but this user may use the new one.
set -eu
umask 077
rm -f "${GWCTL_RUN:-/var/run/gwctl}/dataplane.sock"
exec dataplaneapi -f "${GWCTL_DATA:-/var/lib/gwctl}/dataplaneapi.yaml"
