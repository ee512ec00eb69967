"""`python -m tests.cluster COMMAND`: what `make cluster`, `make images` and `make conformance` run."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from tests.cluster import build, conformance, install
from tests.cluster.cluster import Cluster, running, start, stop
from tests.cluster.programs import find_programs
from tests.parts import PartError, find_dataplaneapi
from tests.parts.cache import say, short

USE = """\
export KUBECONFIG={kubeconfig}
{kubectl} get pods -A        # pods, Services and load balancers are reachable from this machine
make cluster-test            # uses it, with new images
make cluster-down"""


def find_cluster(channel: str, *, stays: bool) -> tuple[Cluster, bool]:
    """The cluster to work with, and whether it was started for this; it has, or can get, images of the code as it is.

    It is the one that KUBECONFIG names, the one that runs on this machine, or a new one, which ends with this process
    unless it `stays`.
    """
    present = running()
    named = os.environ.get("KUBECONFIG")
    if named and not (present and Path(named).resolve() == present.kubeconfig.resolve()):
        say("cluster", f"using the one of KUBECONFIG, {named}")
        return Cluster(Path(named), ours=False), False
    images = [build.build_gwctl(), build.build_haproxy(find_dataplaneapi())]
    if present:
        say("cluster", f"using the one that runs, {short(present.kubeconfig)}")
        for image in images:
            present.load(image)
    cluster = present or start(channel, images, stays=stays)
    return replace(cluster, images=".".join(image.stem for image in images)), not present


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="a one-node Kubernetes for tests")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("images", help="build gwctl's and HAProxy's image into the cache")
    up = commands.add_parser("up", help="start a cluster, and say how to use it")
    commands.add_parser("down", help="stop the cluster and remove what is left of it")
    suite = commands.add_parser("conformance", help="install gwctl and run the official conformance suite")
    for command in (up, suite):
        command.add_argument("--channel", choices=("standard", "experimental"), default="standard", help="of the CRDs")
    suite.add_argument("--gateway-class", help="test this GatewayClass, and install nothing")
    suite.add_argument("--run-test", default="", metavar="NAME", help="one test; writes no report")
    suite.add_argument("--skip-tests", default="", metavar="NAME,NAME")
    suite.add_argument("--short", action="store_true", help="with short timeouts: what fails, fails fast")
    suite.add_argument("--keep", action="store_true", help="keep the suite's backends, and a cluster started for this")
    suite.add_argument("--profiles", default=",".join(conformance.PROFILES))
    suite.add_argument("--report", type=Path, help="where the report goes")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except PartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "images":
        build.build_gwctl()
        build.build_haproxy(find_dataplaneapi())
    elif options.command == "up":
        cluster, _ = find_cluster(options.channel, stays=True)
        print(USE.format(kubeconfig=cluster.kubeconfig, kubectl=find_programs(["kubectl"])["kubectl"]))
    elif options.command == "down":
        stop()
    else:
        return _conformance(options)
    return 0


def _conformance(options: argparse.Namespace) -> int:
    cluster, started = find_cluster(options.channel, stays=options.keep)
    try:
        if not options.gateway_class:
            install.install(cluster)
        run = conformance.Run(
            options.gateway_class or install.GATEWAY_CLASS,
            test=options.run_test,
            skip=options.skip_tests,
            short=options.short,
            keep=options.keep,
            profiles=tuple(options.profiles.split(",")),
            report=options.report,
        )
        return conformance.run_suite(cluster.kubeconfig, run)
    finally:
        if started and not options.keep:
            stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
