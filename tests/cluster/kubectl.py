"""kubectl for tests: commands in, text or objects out."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.programs import find_programs
from tests.parts import PartError
from tests.parts.cache import cache_folder


@dataclass(frozen=True)
class Kubectl:
    """kubectl of one cluster. All methods raise `PartError` when kubectl fails."""

    program: Path
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command and give what it prints."""
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", input=stdin, env=environment())
        if done.returncode:
            raise PartError(f"kubectl {' '.join(arguments)} failed: {(done.stderr + done.stdout).strip()[-1000:]}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, object]) -> None:
        """Apply objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, *arguments: str) -> Any:
        """Give an object or a list as JSON."""
        return json.loads(self.run("get", *arguments, "-o", "json"))


def environment() -> dict[str, str]:
    """The environment for what asks a cluster: what it learns is kept in our cache, not in the user's."""
    return {**os.environ, "KUBECACHEDIR": str(cache_folder() / "kubectl")}


def find_kubectl(kubeconfig: Path) -> Kubectl:
    """kubectl, built where it is missing."""
    return Kubectl(find_programs(["kubectl"])["kubectl"], kubeconfig)
