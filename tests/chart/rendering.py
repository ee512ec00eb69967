"""Rendering the chart: values in, objects out.

Surprising: Helm's own folders are empty ones, so that no plugin or setting of the machine takes part.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
        self._home = home
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none"), **folders}
        self._answers: dict[tuple[str, ...], str] = {}

    def render(self, values: Values | None = None, *, name: str = "gwctl", namespace: str = "gwctl-system") -> Rendered:
        """Render a release. Raises `ChartError`."""
        text = self.run("template", name, str(CHART), f"--namespace={namespace}", values=values)
        return Rendered(tuple(_load(text)))

    def notes(self, values: Values | None = None, *, served: Iterable[str] = ()) -> str:
        """What Helm says after an install in a cluster that serves these versions and kinds.

        Helm tells it only to whoever has a cluster, so it is rendered as an object of a copy of the chart.
        """
        copy = self._home / "gwctl"
        if not copy.exists():
            shutil.copytree(CHART, copy)
            notes = copy / "templates" / "NOTES.txt"
            text = f'{{{{- define "notes" }}}}{notes.read_text(encoding="utf-8")}{{{{ end }}}}'
            notes.with_name("notes.yaml").write_text(
                f'{text}\ntext: {{{{ include "notes" . | toJson }}}}\n', encoding="utf-8"
            )
            notes.unlink()
        versions = [f"--api-versions={item}" for item in served]
        only = "--show-only=templates/notes.yaml"
        place = "--namespace=gwctl-system"
        return str(
            yaml.safe_load(self.run("template", "gwctl", str(copy), place, only, *versions, values=values))["text"]
        )

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


class _Loader(yaml.SafeLoader):
    """Takes no key twice, as other readers of YAML do not either."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value)
        assert max(counts.values(), default=0) <= 1, f"twice in one object: {counts.most_common(1)[0][0]}"
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _load(text: str) -> Iterator[Object]:
    for document in yaml.load_all(text, _Loader):
        if document is not None:
            yield document
