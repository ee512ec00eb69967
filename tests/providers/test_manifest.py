"""Texts to manifests: what YAML and JSON files can hold."""

import pytest

from gwctl.api.httproute import HTTPRoute
from gwctl.api.ref import Ref
from gwctl.providers.manifest import read_manifests

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{x: {value}}}}}\n"


def label(value: str) -> object:
    """Read a label from YAML; None when it is refused."""
    read = read_manifests(NAMESPACE.format(name="n", value=value).encode(), "a.yaml")
    resource = read.resources.get(Ref("Namespace", "", "n"))
    return resource.metadata.labels["x"] if resource is not None else None


@pytest.mark.parametrize(
    "value", ["2024-01-31", "2024-01-31T12:00:00Z", "1:30", "12:30:45", "=", "1e3", "1.2.3", "a=b", "é"]
)
def test_what_kubernetes_takes_for_a_text_is_a_text(value: str) -> None:
    assert label(value) == value


@pytest.mark.parametrize("value", ["1", "0x1f", "017", "-1.5", "true", "yes", "[1]"])
def test_what_kubernetes_takes_for_something_else_is_refused(value: str) -> None:
    assert label(value) is None
    assert label(f'"{value}"') == value


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1", "the key 'a' is there twice"),
        ("a: {x: 1, x: 2}", "line 1, column 11", "the key 'x' is there twice"),
        ("a: !!python/object:os.system {}", "line 1, column 4", "could not determine a constructor"),
        ("a: *b", "line 1, column 4", "undefined alias"),
        ("{[a]: b}: c", "line 1, column 1", "unhashable key"),
        ("é: a\nb: é\x01", "line 2, column 5", "control characters are not allowed"),
        ("---\nfine: 1\n---\n\n\tx: 1\n", "line 5", "cannot start any token"),
        ("just text", "line 1", "a manifest must be an object"),
        ("---\nfine: 1\n---\n- a\n", "line 3", "a manifest must be an object"),
        ("kind: Namespace", "line 1, apiVersion", "must be a text that is not empty"),
        ("---\n---\n{apiVersion: v1, kind: Namespace, metadata: {}}", "line 2, metadata.name", "is required"),
    ],
)
def test_what_is_no_manifest_is_reported_with_its_place(text: str, field: str, message: str) -> None:
    reports = read_manifests(text.encode(), "a.yaml").invalid
    assert {report.subject for report in reports} == {Ref("File", "", "a.yaml")}
    found = [(report.field, report.message) for report in reports]
    assert any(place.startswith(field) and message in said for place, said in found), found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.yaml", "[" * 100_000),
        ("a.json", "[" * 100_000),
        ("a.json", '{"a": "\\ud800"}'),
        ("a.json", ""),
        ("a.json", "\t{"),
    ],
)
def test_hostile_texts_are_only_reports(path: str, text: str) -> None:
    read = read_manifests(text.encode(), path)
    assert read.unclear
    assert [report.subject for report in read.invalid] == [Ref("File", "", path)] or not text


def test_json_may_be_indented_by_tabs_and_begin_with_a_mark() -> None:
    text = '\ufeff{\n\t"apiVersion": "v1",\n\t"kind": "Namespace",\n\t"metadata": {"name": "n"}\n}'
    assert set(read_manifests(text.encode(), "a.json").resources) == {Ref("Namespace", "", "n")}


def test_merge_keys_and_anchors() -> None:
    text = "x: &x {apiVersion: v1, kind: Pod}\n<<: *x\nkind: Namespace\nmetadata: {name: n}\n"
    read = read_manifests(text.encode(), "a.yaml")
    assert set(read.resources) == {Ref("Namespace", "", "n")}


def test_directives_belong_to_the_document_that_follows() -> None:
    text = "%YAML 1.1\n---\n" + NAMESPACE.format(name="a", value="b") + "...\n%YAML 1.1\n---\n"
    text += NAMESPACE.format(name="c", value="d")
    read = read_manifests(text.encode(), "a.yaml")
    assert set(read.resources) == {Ref("Namespace", "", "a"), Ref("Namespace", "", "c")}


def test_windows_line_ends() -> None:
    text = NAMESPACE.format(name="a", value="b") + "---\n" + NAMESPACE.format(name="c", value="d")
    read = read_manifests(text.replace("\n", "\r\n").encode(), "a.yaml")
    assert len(read.resources) == 2
    assert not read.invalid


def test_dashes_inside_a_text_are_no_separator() -> None:
    text = (
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  annotations:\n    x: |\n      a\n      ---\n      b\n"
    )
    read = read_manifests(text.encode(), "a.yaml")
    assert read.resources[Ref("Namespace", "", "n")].metadata.annotations["x"] == "a\n---\nb\n"


def test_of_an_object_that_is_there_twice_the_first_counts() -> None:
    text = NAMESPACE.format(name="n", value="first") + "---\n" + NAMESPACE.format(name="n", value="second")
    read = read_manifests(text.encode(), "a.yaml")
    assert read.resources[Ref("Namespace", "", "n")].metadata.labels == {"x": "first"}
    assert [report.message for report in read.invalid] == ["is defined twice in a.yaml; the first one counts"]


def test_lists_of_any_kind() -> None:
    items = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "%s"}}'
    for kind in ("List", "NamespaceList"):
        text = f'{{"apiVersion": "v1", "kind": "{kind}", "items": [{items % "a"}, {items % "b"}]}}'
        assert len(read_manifests(text.encode(), "a.json").resources) == 2


def test_documents_that_have_not_changed_are_not_parsed_again() -> None:
    texts = [NAMESPACE.format(name=name, value="x") for name in ("a", "b")]
    before = read_manifests("---\n".join(texts).encode(), "a.yaml")
    after = read_manifests("---\n".join([texts[0], texts[1].replace("x: x", "x: y")]).encode(), "a.yaml", before)
    assert after.resources[Ref("Namespace", "", "a")] is before.resources[Ref("Namespace", "", "a")]
    assert after.resources[Ref("Namespace", "", "b")] is not before.resources[Ref("Namespace", "", "b")]


def test_a_regular_expression_survives_yaml() -> None:
    text = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  rules:\n"
        "  - matches:\n    - path: {type: RegularExpression, value: '/[a-z]+\\d{2};\"x\"'}\n"
    )
    route = read_manifests(text.encode(), "a.yaml").resources[Ref("HTTPRoute", "default", "r")]
    assert isinstance(route, HTTPRoute)
    assert route.spec.rules[0].matches[0].path.value == '/[a-z]+\\d{2};"x"'
