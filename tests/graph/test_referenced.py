"""Which ConfigMaps are followed for policies."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.referenced import MOST_CONFIG_MAPS, find_referenced
from gwctl.snapshot import Snapshot
from tests.manifests import CONTROLLER, Manifest, backend_tls_policy
from tests.pipeline import parse


def config_maps(*names: str, namespace: str = "default") -> set[Ref]:
    return {Ref("ConfigMap", namespace, name) for name in names}


def snapshot(*manifests: Manifest) -> Snapshot:
    return Snapshot.of(parse(list(manifests)).values())


def policy(number: int, *names: str, namespace: str = "default") -> Manifest:
    """A policy that is the younger the higher its number is."""
    made = backend_tls_policy(f"p{number}", "web", *names, created=f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z")
    made["metadata"]["namespace"] = namespace
    return made


def test_a_flood_of_policies_is_bounded_and_takes_nothing_from_older_ones_or_other_namespaces() -> None:
    flood = [policy(number, *(f"c{number}-{index}" for index in range(8))) for number in range(300)]
    other = policy(999, "ca", namespace="other")
    refs, left_out = find_referenced(snapshot(*reversed(flood), other), CONTROLLER)
    kept = {f"c{number}-{index}" for number in range(MOST_CONFIG_MAPS // 8) for index in range(8)}
    assert refs == config_maps(*kept) | config_maps("ca", namespace="other")
    assert left_out == {"default": 2400 - MOST_CONFIG_MAPS}


@pytest.mark.parametrize("count", [1, MOST_CONFIG_MAPS])
def test_as_many_as_may_be_are_all_followed_and_each_counts_once(count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    policies = [policy(number, names[number % count], "=x") for number in range(count + 5)]
    refs, left_out = find_referenced(snapshot(*policies), CONTROLLER)
    assert refs == config_maps(*names)
    assert left_out == {}
