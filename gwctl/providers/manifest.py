"""The text of a manifest file, YAML or JSON, to the resources in it and everything that is wrong with it.

The surprising facts: YAML is read as ``kubectl`` reads it (a date stays a text, ``1:30`` is no number, a key
that is there twice is an error), and a document that is no YAML spoils neither its neighbours nor the line
numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from gwctl.api.parse import Invalid, ParseResult, Resource, is_unreadable, parse_resource
from gwctl.api.ref import Ref

if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a file holds.

    ``resources``: of equal Refs the first. ``broken``: objects that are there and cannot be read; ``stand_ins``: what
    stands in for some of them. ``unclear``: something cannot be read, and what it is cannot be told either.
    ``documents``: what the next reading builds upon.
    """

    resources: Mapping[Ref, Resource]
    invalid: tuple[Invalid, ...]
    broken: frozenset[Ref] = frozenset()
    unclear: bool = False
    documents: Mapping[str, tuple[ParseResult, ...]] = field(default_factory=dict, repr=False, compare=False)
    stand_ins: Mapping[Ref, Resource] = field(default_factory=dict)


def read_manifests(data: bytes, path: str, previous: Manifests | None = None) -> Manifests:
    """Read a file (``path`` names it in messages). Documents of ``previous`` are not parsed again."""
    subject = Ref("File", "", path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Manifests({}, (Invalid(subject, f"line {line}", "is not UTF-8 text"),), unclear=True)
    collected = _Collected(subject)
    known = previous.documents if previous is not None else {}
    for line, document in _split(text, path):
        results = known.get(document)
        if results is None:
            try:
                load = _load_json if path.endswith(".json") else _load_yaml
                results = tuple(map(parse_resource, _items(load(document))))
            except _SyntaxError as error:
                where = f"line {line + error.line}, column {error.column + 1}" if error.line >= 0 else ""
                collected.add_unreadable(Invalid(subject, where, str(error)))
                continue
        collected.add(document, results, line)
    return collected.build()


class _Collected:
    def __init__(self, subject: Ref) -> None:
        self.subject = subject
        self.resources: dict[Ref, Resource] = {}
        self.invalid: list[Invalid] = []
        self.broken: set[Ref] = set()
        self.stand_ins: dict[Ref, Resource] = {}
        self.unclear = False
        self.documents: dict[str, tuple[ParseResult, ...]] = {}

    def add_unreadable(self, invalid: Invalid) -> None:
        self.invalid.append(invalid)
        self.unclear = True

    def add(self, document: str, results: tuple[ParseResult, ...], line: int) -> None:
        self.documents[document] = results
        for resource, invalid in results:
            self.invalid += (item if _has_name(item.subject) else self._locate(item, line) for item in invalid)
            if resource is not None and is_unreadable(resource):
                self.broken.add(resource.ref)
                self.stand_ins.setdefault(resource.ref, resource)
            elif resource is None and invalid:
                subject = invalid[0].subject
                self.broken.add(subject)
                self.unclear = self.unclear or not _has_name(subject)
            elif resource is not None and resource.ref in self.resources:
                message = f"is defined twice in {self.subject.name}; the first one counts"
                self.invalid.append(Invalid(resource.ref, "", message))
            elif resource is not None:
                self.resources[resource.ref] = resource

    def _locate(self, invalid: Invalid, line: int) -> Invalid:
        """Say where an object stands that cannot be named."""
        return replace(invalid, subject=self.subject, field=", ".join(filter(None, (f"line {line}", invalid.field))))

    def build(self) -> Manifests:
        return Manifests(
            self.resources,
            tuple(self.invalid),
            frozenset(self.broken),
            self.unclear,
            self.documents,
            {ref: resource for ref, resource in self.stand_ins.items() if ref not in self.resources},
        )


def _has_name(subject: Ref) -> bool:
    return bool(subject.kind and subject.name)


def _split(text: str, path: str) -> Iterator[tuple[int, str]]:
    """Yield the documents, each with the number of its first line.

    ``---`` at the start of a line is a separator wherever it stands (YAML 1.2, rule 206): no parser is
    needed. Directives belong to the document that follows them: such files are not split.
    """
    if path.endswith(".json") or _DIRECTIVE.search(text):
        yield 1, text
        return
    line, start = 1, 0
    for match in (*_SEPARATOR.finditer(text), None):
        end = match.start() if match is not None else len(text)
        document = text[start:end]
        if document.strip():
            yield line, document
        line += document.count("\n")
        start = end


class _SyntaxError(Exception):
    """A text is no YAML or JSON. ``line`` and ``column`` count from 0; -1 is unknown."""

    def __init__(self, message: str, line: int = -1, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class _Loader(_BaseLoader):
    """YAML as Kubernetes' own tools read it."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value!r} is there twice", key.start_mark
                        )
                    seen.add(key.value)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1 in more than Kubernetes does: dates, base 60, and '=' as a value of its own.
_DROPPED = {
    "tag:yaml.org,2002:timestamp",
    "tag:yaml.org,2002:value",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _load_yaml(text: str) -> Iterator[object]:
    try:
        yield from yaml.load_all(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part) or "is not YAML"
        raise _SyntaxError(message, *((mark.line, mark.column) if mark is not None else ())) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        raise _SyntaxError(str(error.reason), line, column) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _SyntaxError(str(error)) from None
    except RecursionError:
        raise _SyntaxError("is nested too deeply") from None


def _load_json(text: str) -> Iterator[object]:
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _SyntaxError(error.msg, error.lineno - 1, error.colno - 1) from None
    except UnicodeEncodeError:
        raise _SyntaxError("holds half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise _SyntaxError("is nested too deeply") from None
    yield value


def _items(documents: Iterator[object]) -> Iterator[object]:
    """Yield the manifests, those inside lists one by one; an empty document is none."""
    for document in documents:
        if isinstance(document, Mapping) and isinstance(document.get("items"), list) and _is_list(document):
            yield from document["items"]
        elif document is not None:
            yield document


def _is_list(document: Mapping[object, object]) -> bool:
    kind = document.get("kind")
    return isinstance(kind, str) and kind.endswith("List")
