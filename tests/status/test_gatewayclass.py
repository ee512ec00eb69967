"""What the status of a GatewayClass says."""

from __future__ import annotations

import pytest

from gwctl.status.feature import SUPPORTED_FEATURES
from gwctl.status.outcome import Outcome
from tests.graph.manifests import CLASS, GATEWAY, graph_of
from tests.status.resources import CLASS_REF, message, status_of, words
from tests.status.test_route import route, rule

THEIRS = "{kind: GatewayClass, metadata: {name: other}, spec: {controllerName: example.com/other}}"


def test_a_class_of_ours_is_accepted_and_says_what_is_supported() -> None:
    outcome = Outcome(graph_of(CLASS + THEIRS), channels=frozenset({"experimental"}))
    status = status_of(outcome, CLASS_REF)
    assert words(status.conditions) == {"Accepted": "True/Accepted"}
    assert status.supported_features == SUPPORTED_FEATURES
    assert status.listeners is None


def test_a_class_with_parameters_is_not_accepted() -> None:
    text = CLASS.replace("}}", ", parametersRef: {group: g.io, kind: K, name: n}}}")
    status = status_of(Outcome(graph_of(text)), CLASS_REF)
    assert words(status.conditions) == {"Accepted": "False/InvalidParameters"}
    assert message(status.conditions, "Accepted").startswith("spec.parametersRef: ")


@pytest.mark.parametrize(
    ("versions", "word"),
    [
        ({"v1.6.3"}, "True/SupportedVersion"),
        ({"v1.0.0", "v1.5.1", "v1.6.0-rc.1"}, "True/SupportedVersion"),
        ({"v1.6.3", "v1.7.0"}, "False/UnsupportedVersion"),
        ({"v1.6.3", ""}, "False/UnsupportedVersion"),
        ({"v0.8.1"}, "False/UnsupportedVersion"),
        ({"v2.0.0"}, "False/UnsupportedVersion"),
        ({"1.6"}, "False/UnsupportedVersion"),
    ],
)
def test_the_versions_of_the_crds(versions: set[str], word: str) -> None:
    outcome = Outcome(graph_of(CLASS), bundle_versions=frozenset(versions))
    conditions = status_of(outcome, CLASS_REF).conditions
    assert words(conditions) == {"Accepted": "True/Accepted", "SupportedVersion": word}


def test_the_versions_that_are_not_known_are_named() -> None:
    outcome = Outcome(graph_of(CLASS), bundle_versions=frozenset({"v1.6.3", "v1.7.0", ""}))
    told = message(status_of(outcome, CLASS_REF).conditions, "SupportedVersion")
    assert told == "CRDs of the Gateway API have the bundle-version none, v1.7.0; supported are v1.0 to v1.6"


def test_where_no_crd_is_found_nothing_is_said_of_versions() -> None:
    outcome = Outcome(graph_of(CLASS), bundle_versions=frozenset())
    assert words(status_of(outcome, CLASS_REF).conditions) == {"Accepted": "True/Accepted"}


@pytest.mark.parametrize(
    ("versions", "are_told"),
    [
        ({"v1.0.0"}, False),
        ({"v1.1.1", "v1.6.3"}, False),
        ({"v1.2.0-rc2"}, True),
        ({"v1.10.0"}, True),
        ({"v2.0.0", ""}, True),
        (set(), True),
    ],
)
def test_features_are_left_out_where_the_crds_cannot_take_them(versions: set[str], are_told: bool) -> None:
    status = status_of(Outcome(graph_of(CLASS), bundle_versions=frozenset(versions)), CLASS_REF)
    assert (status.supported_features is not None) == are_told


def test_features_are_sorted() -> None:
    assert list(SUPPORTED_FEATURES) == sorted(SUPPORTED_FEATURES)
    assert len(SUPPORTED_FEATURES) <= 64


REDIRECT = "{{filters: [{{type: RequestRedirect, requestRedirect: {{{}}}}}]}}"
# A rule that uses the feature.
RULES = {
    "HTTPRoute303RedirectStatusCode": REDIRECT.format("statusCode: 303"),
    "HTTPRoute307RedirectStatusCode": REDIRECT.format("statusCode: 307"),
    "HTTPRoute308RedirectStatusCode": REDIRECT.format("statusCode: 308"),
    "HTTPRouteMethodMatching": "{matches: [{method: GET}]}",
    "HTTPRouteNamedRouteRule": "{name: a}",
    "HTTPRoutePathRedirect": REDIRECT.format("path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}"),
    "HTTPRoutePortRedirect": REDIRECT.format("port: 8080"),
    "HTTPRouteQueryParamMatching": "{matches: [{queryParams: [{name: a, value: b}]}]}",
    "HTTPRouteSchemeRedirect": REDIRECT.format("scheme: https"),
}


@pytest.mark.parametrize("feature", RULES)
def test_what_is_claimed_has_no_problem(feature: str) -> None:
    assert feature in SUPPORTED_FEATURES
    graph = graph_of(GATEWAY + route(more=rule(RULES[feature])))
    assert graph.problems == ()


def test_with_crds_of_the_standard_channel_nothing_is_claimed_that_they_cannot_say() -> None:
    def features(*channels: str) -> set[str]:
        status = status_of(Outcome(graph_of(CLASS), channels=frozenset(channels)), CLASS_REF)
        return set(status.supported_features or ())

    assert features() == features("standard") == features("standard", "experimental")
    assert features("experimental") - features("standard") == {
        "HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError",
    }  # fmt: skip
