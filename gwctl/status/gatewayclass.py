"""GatewayClasses: whether each of ours stands, and what gwctl supports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gwctl.api.ref import Ref
from gwctl.status.condition import Condition, judge, select, with_notes
from gwctl.status.feature import find_features
from gwctl.status.outcome import Outcome
from gwctl.status.status import Status

NEWEST_MINOR = 6
"""gwctl knows the Gateway API from version 1.0 to this minor version."""

_FEATURES_MINOR = 2
"""Before it, ``supportedFeatures`` was a list of texts, or was not there, and one of objects makes a status invalid."""

_BUNDLE = re.compile(r"v1\.(0|[1-9][0-9]*)\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def build_gatewayclasses(outcome: Outcome, before: Outcome | None) -> Iterator[tuple[Ref, Status | None]]:
    """The status of every GatewayClass that may have changed; None for one that is no longer ours."""
    graph = outcome.graph
    for ref in before.graph.classes.keys() - graph.classes.keys() if before is not None else ():
        yield ref, None
    for ref, resource in graph.classes.items():
        problems = [problem for problem in graph.class_problems if problem.subject == ref]
        good = with_notes("gwctl serves Gateways of this class", outcome.stale_problems(ref))
        conditions = [judge("Accepted", select(problems, "Accepted"), good)]
        if outcome.bundle_versions:
            conditions.append(_check_versions(outcome.bundle_versions))
        metadata = resource.metadata
        minors = {_minor(version) for version in outcome.bundle_versions or ()}
        has_features = all(minor is None or minor >= _FEATURES_MINOR for minor in minors)
        yield (
            ref,
            Status(
                metadata.uid,
                outcome.generation(ref, metadata.generation),
                conditions=tuple(conditions),
                supported_features=find_features(outcome.channels) if has_features else None,
            ),
        )


def _check_versions(found: frozenset[str]) -> Condition:
    """Whether we know the version of every CRD. Others are served as well as can be (GatewayClassStatus)."""
    unknown = sorted(version for version in found if not _is_known(version))
    if not unknown:
        return Condition("SupportedVersion", "True", "SupportedVersion", "the versions of all CRDs are supported")
    names = ", ".join(version or "none" for version in unknown)
    message = f"CRDs of the Gateway API have the bundle-version {names}; supported are v1.0 to v1.{NEWEST_MINOR}"
    return Condition("SupportedVersion", "False", "UnsupportedVersion", message)


def _is_known(version: str) -> bool:
    minor = _minor(version)
    return minor is not None and minor <= NEWEST_MINOR


def _minor(version: str) -> int | None:
    """Give the minor version of a version 1, None for any other text."""
    match = _BUNDLE.fullmatch(version)
    return int(match[1]) if match is not None else None
