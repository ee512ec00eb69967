"""Rendering the chart: values in, objects out.

Surprising: Helm's own folders are empty ones, so that no plugin or setting of the machine takes part.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "gwctl"
Values = Mapping[str, Any]
Object = dict[str, Any]


class ChartError(Exception):
    """Helm refused; the message is what it said."""


@dataclass(frozen=True)
class Rendered:
    """The objects of a release."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Object:
        """The only object of a kind, or of that name."""
        found = [item for item in self.all(kind) if not name or item["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
        return found[0]

    @property
    def workload(self) -> Object:
        """The Deployment or DaemonSet."""
        found = [item for item in self.objects if item["kind"] in ("Deployment", "DaemonSet")]
        assert len(found) == 1
        return found[0]

    @property
    def pod(self) -> Object:
        """The specification of the pods."""
        spec: Object = self.workload["spec"]["template"]["spec"]
        return spec

    def container(self, name: str) -> Object:
        """A container of the pods, an init container included."""
        return next(item for item in self.containers if item["name"] == name)

    @property
    def containers(self) -> list[Object]:
        """All containers, the first those that initialise."""
        return [*self.pod["initContainers"], *self.pod["containers"]]

    @property
    def config(self) -> str:
        """gwctl's configuration file."""
        text: str = self.one("ConfigMap")["data"]["gwctl.yaml"]
        return text


class Helm:
    """Helm with the chart. What has been rendered once is not rendered again."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none"), **folders}
        self._answers: dict[tuple[str, ...], str] = {}

    def render(self, values: Values | None = None, *, name: str = "gwctl", namespace: str = "gwctl-system") -> Rendered:
        """Render a release. Raises `ChartError`."""
        text = self.run("template", name, str(CHART), f"--namespace={namespace}", values=values)
        return Rendered(tuple(_load(text)))

    def notes(self, values: Values | None = None) -> str:
        """What Helm says after an install, here without a cluster."""
        text = self.run("install", "gwctl", str(CHART), "--namespace=gwctl-system", "--dry-run=client", values=values)
        return text.partition("\nNOTES:\n")[2]

    def run(self, command: str, *arguments: str, values: Values | None = None) -> str:
        """Run Helm and give what it prints. Raises `ChartError`."""
        text = yaml.safe_dump(dict(values or {}))
        asked = (command, *arguments, text)
        if asked not in self._answers:
            self._answers[asked] = self._run([command, *arguments, "--values=-"], text)
        return self._answers[asked]

    def _run(self, arguments: list[str], text: str) -> str:
        done = subprocess.run(
            [self._program, *arguments],
            input=text,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ChartError(done.stdout + done.stderr)
        return done.stdout


def _load(text: str) -> Iterator[Object]:
    for document in yaml.safe_load_all(text):
        if document is not None:
            yield document
