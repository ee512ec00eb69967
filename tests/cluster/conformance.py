"""The official conformance suite against a GatewayClass, and the report that it writes.

In: a cluster where an implementation runs. Out: the suite's exit status, and with a whole run a report in
`docs/conformance`. Surprising: the suite takes the features from the GatewayClass's status only when it runs all tests,
so for a single one they are read here.
"""

import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gwctl import __version__
from tests.cluster.kubectl import Kubectl, find_kubectl
from tests.cluster.programs import find_programs
from tests.parts.cache import cache_folder, say, short

NAME = "conformance"
PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP")
REPORTS = Path(__file__).parents[2] / "docs" / "conformance"
IMPLEMENTATION = {
    "organization": "gwctl",
    "project": "gwctl",
    "url": "https://gwctl.io",
    "version": f"v{__version__}",
    "contact": "@gwctl/maintainers",
}
# For the test of static addresses: the first is in the pool of tests.cluster.loadbalancer, the second is nobody's.
ADDRESSES = {"usable-address": "10.250.0.200", "unusable-address": "10.251.0.1"}
SHORT_TIMEOUTS = ";".join(
    f"{name}:{seconds}"
    for name, seconds in {
        "DefaultTestTimeout": 20,
        "GatewayListenersMustHaveConditions": 10,
        "GatewayMustHaveAddress": 20,
        "GatewayMustHaveCondition": 10,
        "GatewayStatusMustHaveListeners": 10,
        "HTTPRouteMustHaveCondition": 10,
        "HTTPRouteMustNotHaveParents": 10,
        "LatestObservedGenerationSet": 10,
        "MaxTimeToConsistency": 8,
        "RouteMustHaveParents": 10,
        "TCPRouteMustHaveCondition": 10,
        "TLSRouteMustHaveCondition": 10,
    }.items()
)

_END = re.compile(r" *--- (?P<how>PASS|FAIL|SKIP): TestConformance/[^/ ]+ ")


@dataclass(frozen=True)
class Run:
    """What to run: all tests, or one by its name, with the suite's own or with short timeouts."""

    gateway_class: str
    test: str = ""
    skip: str = ""
    short: bool = False
    keep: bool = False
    profiles: tuple[str, ...] = PROFILES
    report: Path | None = None


def run_suite(kubeconfig: Path, run: Run) -> int:
    """Run the suite and show how its tests end. Gives its exit status, 0 when all tests have passed."""
    program = find_programs(["conformance"])["conformance"]
    kubectl = find_kubectl(kubeconfig)
    gateway_class = kubectl.get("gatewayclass", run.gateway_class)
    flags = {
        "gateway-class": run.gateway_class,
        "conformance-profiles": ",".join(run.profiles),
        "skip-tests": run.skip,
        "timeout-config-overrides": SHORT_TIMEOUTS if run.short else "",
        "cleanup-base-resources": "false" if run.keep else "",
        **ADDRESSES,
        **IMPLEMENTATION,
    }
    if run.test:
        features = [feature["name"] for feature in gateway_class.get("status", {}).get("supportedFeatures", [])]
        flags |= {"run-test": run.test, "supported-features": ",".join(features)}
    report = run.report or REPORTS / f"{_channel(kubectl)}-v{__version__}-default-report.yaml"
    if not run.test:
        report.parent.mkdir(parents=True, exist_ok=True)
        flags["report-output"] = str(report)
    command = [str(program), "-test.v", "-test.run=TestConformance$", "-test.timeout=120m"]
    command += [f"--{name}={value}" for name, value in flags.items() if value]
    status = _follow(command, {**os.environ, "KUBECONFIG": str(kubeconfig)}, everything=bool(run.test))
    if not run.test and report.exists():
        say(NAME, f"the report is {short(report)}")
    return status


def _follow(command: list[str], environment: dict[str, str], *, everything: bool) -> int:
    """Run the suite, which says very much: all of it goes to a file, and each test's end is shown as it comes."""
    log = cache_folder() / "conformance.log"
    say(NAME, f"setting up backends, then the tests; everything is said in {short(log)} …")
    ends: Counter[str] = Counter()
    with (
        log.open("w", encoding="utf-8") as written,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as suite,
    ):  # fmt: skip
        assert suite.stdout is not None
        for line in suite.stdout:
            written.write(line)
            end = _END.match(line)
            if end:
                ends[end["how"]] += 1
            if everything or (end and end["how"] != "SKIP"):
                print(line.strip() if end else line.rstrip(), flush=True)
    say(NAME, f"{ends['PASS']} passed, {ends['FAIL']} failed, {ends['SKIP']} skipped; {short(log)}")
    return suite.returncode


def _channel(kubectl: Kubectl) -> str:
    """`standard` or `experimental`, as the installed CRDs say."""
    crd = kubectl.get("crd", "gateways.gateway.networking.k8s.io")
    return str(crd["metadata"]["annotations"]["gateway.networking.k8s.io/channel"])
