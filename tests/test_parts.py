"""How programs are found, told apart by version and kept, without a network."""

import os
import time
from pathlib import Path

import pytest

from tests.parts import PartError, find_dataplaneapi, find_haproxy, find_helm
from tests.parts.apt import Package, libraries_of
from tests.parts.cache import building, cache_folder, drop_unused
from tests.parts.part import is_at_least


def program(path: Path, prints: str) -> Path:
    """A program that prints one line whatever it is asked."""
    path.write_text(f"#!/bin/sh\necho '{prints}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "enough"),
    [("3.4.7", True), ("3.4", True), ("3.10.1", True), ("4.0", True), ("3.3.9", False), ("2.9", False)],
)
def test_versions_compare_by_number(version: str, enough: bool) -> None:
    assert is_at_least(version, (3, 4)) is enough


def test_haproxy_of_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "h", "HAProxy version 3.5.1-1 2026/11/01")
    monkeypatch.setenv("GWCTL_HAPROXY", str(named))
    assert find_haproxy() == named


def test_old_haproxy_of_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_HAPROXY", str(program(tmp_path / "h", "HAProxy version 2.6.12-1 2023/01/01")))
    with pytest.raises(PartError, match=r"GWCTL_HAPROXY names HAProxy 2\.6\.12, but gwctl needs 3\.4 or newer"):
        find_haproxy()


def test_a_name_that_is_no_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_DATAPLANEAPI", str(tmp_path / "missing"))
    with pytest.raises(PartError, match="is not an executable file"):
        find_dataplaneapi()


def test_old_dataplaneapi_on_path_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "dataplaneapi", "HAProxy Data Plane API v3.3.5 abc")
    monkeypatch.delenv("GWCTL_DATAPLANEAPI", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PartError, match=r"3\.3\.5.*take it off PATH to use the project's stand-in"):
        find_dataplaneapi()


def test_real_dataplaneapi_wins_over_the_standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "d", "HAProxy Data Plane API v3.4.2 abc")
    monkeypatch.setenv("GWCTL_DATAPLANEAPI", str(named))
    part = find_dataplaneapi()
    assert (part.path, part.version, part.kind) == (named, "3.4.2", "real")


def test_helm_of_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "helm", "v4.3")
    monkeypatch.setenv("GWCTL_HELM", str(named))
    assert find_helm() == named


def test_old_helm_of_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_HELM", str(program(tmp_path / "helm", "v3.17.4")))
    with pytest.raises(PartError, match=r"GWCTL_HELM names Helm 3\.17\.4, but the chart's tests need 3\.18 or newer"):
        find_helm()


def test_libraries_leave_programs_out() -> None:
    packages = [
        Package("haproxy", "1", section="net", depends=frozenset({"libssl", "systemd"})),
        Package("libssl", "1", section="libs", depends=frozenset({"libc6"})),
        Package("libc6", "1", section="libs"),
        Package("systemd", "1", section="admin", depends=frozenset({"libsystemd0"})),
        Package("libsystemd0", "1", section="libs"),
    ]
    assert [package.name for package in libraries_of(["haproxy"], packages)] == ["haproxy", "libssl", "libc6"]


def test_an_entry_appears_only_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_CACHE", str(tmp_path / "cache"))
    entry = cache_folder() / "thing"
    with pytest.raises(FileNotFoundError), building(entry) as folder:
        (folder / "half").rename(folder / "whole")
    assert list(cache_folder().iterdir()) == []
    with building(entry) as folder:
        (folder / "whole").touch()
        assert not entry.exists()
    assert [file.name for file in entry.iterdir()] == ["whole"]
    with building(entry) as folder:
        (folder / "again").touch()
    assert [file.name for file in entry.iterdir()] == ["again"]


def test_entries_unused_for_long_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWCTL_CACHE", str(tmp_path))
    old, new = tmp_path / "thing-old", tmp_path / "thing-new"
    for entry in (old, new):
        entry.mkdir()
    long_ago = time.time() - 90 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    drop_unused("thing-*")
    assert (old.exists(), new.exists()) == (False, True)
