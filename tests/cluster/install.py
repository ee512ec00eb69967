"""gwctl in a cluster, by its chart; used by the tests and by the conformance suite alike.

In: a cluster that has the Gateway API's CRDs, and images that it can get. Out: a release `gwctl` in `gwctl-system`,
with a GatewayClass `gwctl`, ready to take Gateways.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.build import GWCTL, HAPROXY
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import environment
from tests.parts import PartError, find_helm
from tests.parts.cache import say

NAME = "chart"
CHART = Path(__file__).parents[2] / "charts" / "gwctl"
NAMESPACE = "gwctl-system"
RELEASE = "gwctl"
GATEWAY_CLASS = "gwctl"
READY_SECONDS = 180


def image_names() -> tuple[str, str]:
    """gwctl's and HAProxy's image: those made here, or what GWCTL_IMAGE and GWCTL_HAPROXY_IMAGE name."""
    return os.environ.get("GWCTL_IMAGE", GWCTL), os.environ.get("GWCTL_HAPROXY_IMAGE", HAPROXY)


def install(cluster: Cluster, values: Mapping[str, str] | None = None) -> None:
    """Install or update the release and wait until it is ready. `values` are the chart's, by dotted name."""
    if not CHART.exists():
        raise PartError("there is no chart in charts/gwctl yet")
    # The suite looks for what a Gateway has led to in the Gateway's namespace: its alias.
    given = {"gatewayClass.name": GATEWAY_CLASS, "replicas": "1", "gatewayService.aliases": "true"}
    given |= {**image_values(cluster), **(values or {})}
    settings = [f"--set={name}={value}" for name, value in given.items()]
    say(NAME, f"installing gwctl into {NAMESPACE} …")
    helm(
        cluster, "upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--wait",
        f"--timeout={READY_SECONDS}s", *settings,
    )  # fmt: skip


def image_values(cluster: Cluster) -> dict[str, str]:
    """The chart's values for the images, by dotted name; pods are replaced when images have changed."""
    values = {"podAnnotations.images": cluster.images} if cluster.images else {}
    for part, image in zip(("gwctl", "haproxy"), image_names(), strict=True):
        repository, _, tag = image.rpartition(":")
        values |= {f"{part}.image.repository": repository, f"{part}.image.tag": tag}
    return values


def helm(cluster: Cluster, *arguments: str, namespace: str = NAMESPACE) -> str:
    """Run Helm and give what it prints. Raises `PartError`."""
    command = [str(find_helm()), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={namespace}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment())
    if done.returncode:
        raise PartError(f"helm {arguments[0]} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
