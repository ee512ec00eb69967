"""``gwctl validate``: everything a user must fix, before a cluster or HAProxy sees it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from gwctl.cli.manifests import Finding, Result, find_findings, read_pipeline
from gwctl.cli.option import config_options, manifests_option, output_option, read_config


@click.command(short_help="Print every problem of manifests.")
@manifests_option
@output_option("text", "text", "json")
@config_options("gateway_controller_name")
def validate(manifests: Path, output: str, config_file: Path | None, **flags: Any) -> None:
    """Check manifests and print every problem: object, field, condition/reason and message.

    The exit status is 1 when there are any. References between manifests are checked too, so give
    everything that belongs together.
    """
    result = read_pipeline(manifests, read_config(config_file, flags).gateway_controller_name)
    findings = find_findings(result)
    if output == "json":
        body = {"resources": _count(result), "problems": [item._asdict() for item in findings]}
        click.echo(json.dumps(body, indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(_summary(result, findings))
    if findings:
        raise click.exceptions.Exit(1)


def _count(result: Result) -> dict[str, int]:
    return dict(sorted(Counter(item.ref.kind for item in result.pipeline.snapshot.resources()).items()))


def _summary(result: Result, findings: list[Finding]) -> str:
    counts = _count(result)
    total = sum(counts.values())
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    listed = f" ({kinds})" if kinds else ""
    problems = f"{len(findings)} problem{'' if len(findings) == 1 else 's'}" if findings else "no problems"
    return f"{total} resource{'' if total == 1 else 's'}{listed}: {problems}"
