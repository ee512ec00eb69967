"""The file source, as editors, ConfigMap mounts and git-sync use it."""

import asyncio
import errno
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gwctl.api.parse import Invalid, is_unreadable
from gwctl.api.ref import Ref
from gwctl.providers.file import GRACE, FileSource
from gwctl.providers.source import SourceError
from gwctl.providers.watch import is_absent
from tests.manifests import backend_tls_policy
from tests.providers.reader import SETTLE, Reader


def service(name: str, port: int = 80, namespace: str = "") -> str:
    where = f", namespace: {namespace}" if namespace else ""
    head = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{where}}}\n"
    return f"{head}spec: {{ports: [{{port: {port}}}]}}\n"


def ref(name: str, namespace: str = "default") -> Ref:
    return Ref("Service", namespace, name)


def messages(reader: Reader) -> dict[str, str]:
    return {invalid.subject.name: invalid.message for invalid in reader.invalid}


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[Reader]:
    reader = Reader(FileSource(path))
    try:
        await reader.next()
        yield reader
    finally:
        await reader.close()


@contextmanager
def closed(directory: Path) -> Iterator[None]:
    """Take the permissions of a directory away, from root too."""

    def guard(call: Callable[..., Any], refuses: Callable[[Path], bool]) -> Callable[..., Any]:
        def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | os.PathLike) and refuses(Path(path)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return call(path, *args, **kwargs)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", guard(os.scandir, lambda path: directory in (path, *path.parents)))
        patch.setattr(os, "stat", guard(os.stat, lambda path: directory in path.parents))
        directory.chmod(0o700)  # is told
        yield
    directory.chmod(0o700)


async def test_the_first_batch_is_everything(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text(f"{service('a')}---\n{service('b')}---\n# nothing\n---\n")
    (tmp_path / "deep" / "c.yml").write_text(service("c", namespace="other"))
    (tmp_path / "deep" / "er" / "d.json").write_text(
        '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Service",'
        '"metadata": {"name": "d"}, "spec": {"ports": [{"port": 1}]}}]}'
    )
    (tmp_path / "notes.txt").write_text("kind: Service")
    (tmp_path / ".hidden.yaml").write_text(service("hidden"))
    async with reading(tmp_path) as reader:
        assert set(reader.state) == {ref("a"), ref("b"), ref("c", "other"), ref("d")}
        assert reader.invalid == ()


async def test_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "only.yaml"
    path.write_text(service("a"))
    (tmp_path / "other.yaml").write_text(service("b"))
    async with reading(path) as reader:
        assert reader.ports() == {"a": 80}
        path.write_text(service("a", 81))
        await reader.next()
        assert reader.ports() == {"a": 81}
        new = tmp_path / "new"
        new.write_text(service("a", 82))
        new.rename(path)
        await reader.settle()
        assert reader.ports() == {"a": 82}


def test_a_missing_path_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: no such file or directory$"):
        FileSource(tmp_path / "nowhere").read()


async def test_only_what_differs_is_in_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{service('a')}---\n{service('b')}")
    async with reading(tmp_path) as reader:
        path.write_text(f"{service('a')}---\n{service('b', 81)}---\n{service('c')}")
        batch = await reader.next()
        assert set(batch.changes) == {ref("b"), ref("c")}
        path.write_text(service("c"))
        batch = await reader.next()
        assert batch.changes == {ref("a"): None, ref("b"): None}


async def test_a_file_written_again_unchanged_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        path.write_text(f"# a comment\n{service('a')}")
        await reader.settle()
        assert len(reader.seen) == 1


async def test_deleting_the_file_deletes_its_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        path.unlink()
        await reader.next()
        assert reader.state == {}


async def test_an_editor_that_renames_into_place(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        for port in (81, 82):
            (tmp_path / ".a.yaml.swp").write_text(service("a", port))
            (tmp_path / ".a.yaml.swp").rename(path)
            await reader.next()
            assert reader.ports() == {"a": port}


async def test_an_editor_that_deletes_and_creates_never_deletes_the_object(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        path.rename(tmp_path / "a.yaml~")
        await asyncio.sleep(0.01)
        path.write_text(service("a", 81))
        await reader.settle()
        assert reader.ports() == {"a": 81}
        path.unlink()
        await asyncio.sleep(0.01)
        path.write_text(service("a", 82))
        await reader.settle()
        assert reader.ports() == {"a": 82}
        assert all(None not in batch.changes.values() for batch in reader.seen)


async def test_an_editor_that_truncates_and_writes_slowly_never_deletes_the_object(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{service('a')}---\n{service('b')}")
    async with reading(tmp_path) as reader:
        with path.open("w") as file:
            await asyncio.sleep(SETTLE)
            file.write(f"{service('a', 81)}---\napiVers")
            file.flush()
            (tmp_path / "unrelated").mkdir()  # has everything looked at again
            await reader.settle()
            file.write(f"ion: v1\n{service('b', 81).partition(chr(10))[2]}")
        await reader.settle()
        assert reader.ports() == {"a": 81, "b": 81}
        assert all(None not in batch.changes.values() for batch in reader.seen)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", ""),
        ("\n\n", ""),
        ("kind: ]", "line 1, column 7"),
        (f"{service('a', 81)}---\nfoo: bar: baz\n", "line 6, column 9"),
        (f"{service('a', 81)}---\nkind: Service\nmetadata: {{}}\n", "line 5, apiVersion"),
        (f"{service('a', 81)}---\n{service('b', 0)}", "spec.ports[0].port"),
    ],
)
async def test_what_no_longer_parses_keeps_its_last_good_version(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{service('a')}---\n{service('b')}")
    async with reading(tmp_path) as reader:
        path.write_text(text)
        await reader.next()
        assert reader.ports() == {"a": 81 if "81" in text else 80, "b": 80}
        assert [invalid.field for invalid in reader.invalid] == [field]
        path.write_text(service("b", 82))
        await reader.settle()
        assert reader.ports() == {"b": 82}
        assert reader.invalid == ()


async def test_other_objects_changes_are_taken_though_one_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{service('a')}---\n{service('b')}")
    async with reading(tmp_path) as reader:
        path.write_text(service("b", 99999))
        batch = await reader.next()
        assert batch.changes == {ref("a"): None}
        assert [invalid.subject for invalid in batch.invalid] == [ref("b")]


async def test_a_file_that_never_parsed_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "bad.yaml").write_bytes(b"a: \xff")
    (tmp_path / "worse.json").write_text('{"a": }')
    async with reading(tmp_path) as reader:
        assert [(invalid.subject, invalid.field) for invalid in reader.invalid] == [
            (Ref("File", "", "sub/bad.yaml"), "line 1"),
            (Ref("File", "", "worse.json"), "line 1, column 7"),
        ]


async def test_of_two_files_with_one_object_the_first_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    second.write_text(service("x", 2))
    async with reading(tmp_path) as reader:
        first.write_text(service("x", 1))
        await reader.next()
        assert reader.ports() == {"x": 1}
        assert reader.invalid == (Invalid(ref("x"), "", "is defined in a.yaml and in b.yaml; the first one counts"),)
        first.unlink()
        await reader.next()
        assert reader.ports() == {"x": 2}
        assert not reader.invalid


async def test_a_configmap_mount_swaps_all_files_at_once(tmp_path: Path) -> None:
    def publish(version: str, files: dict[str, str]) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("1", {"a.yaml": service("a"), "b.yaml": service("b")})
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    async with reading(tmp_path) as reader:
        assert reader.ports() == {"a": 80, "b": 80}
        for version, port in (("2", 81), ("3", 82)):
            publish(version, {"a.yaml": service("a", port), "b.yaml": service("b", port)})
            batch = await reader.next()
            assert len(batch.changes) == 2
            assert reader.ports() == {"a": port, "b": port}
        publish("4", {"a.yaml": service("a", 83)})
        await reader.settle()
        assert reader.ports() == {"a": 83}


async def test_git_sync_swaps_the_whole_directory(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version / "manifests").mkdir(parents=True)
        (tmp_path / version / "manifests" / "a.yaml").write_text(service("a", int(version)))
    (tmp_path / "current").symlink_to("1")
    async with reading(tmp_path / "current" / "manifests") as reader:
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(tmp_path / "current")
        await reader.next()
        assert reader.ports() == {"a": 2}
        (tmp_path / "2" / "manifests" / "a.yaml").write_text(service("a", 3))
        await reader.next()
        assert reader.ports() == {"a": 3}


async def test_a_link_to_a_file_elsewhere_follows_it(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    target = tmp_path / "elsewhere.yaml"
    target.write_text(service("a"))
    async with reading(tmp_path / "root") as reader:
        (tmp_path / "root" / "a.yaml").symlink_to(target)
        await reader.next()
        target.write_text(service("a", 81))
        await reader.next()
        assert reader.ports() == {"a": 81}


async def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(service("a"))
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "self.yaml").symlink_to("self.yaml")
    async with reading(tmp_path) as reader:
        assert reader.ports() == {"a": 80}


async def test_directories_come_and_go(tmp_path: Path) -> None:
    async with reading(tmp_path) as reader:
        new = tmp_path / "x" / "y"
        new.mkdir(parents=True)
        (new / "a.yaml").write_text(service("a"))
        await reader.settle()
        assert reader.ports() == {"a": 80}
        (tmp_path / "x").rename(tmp_path / "z")
        await reader.settle()
        assert reader.ports() == {"a": 80}
        (tmp_path / "z" / "y" / "a.yaml").write_text(service("a", 81))
        await reader.next()
        assert reader.ports() == {"a": 81}
        (tmp_path / "z").rename(tmp_path / ".z")
        await reader.settle()
        assert reader.state == {}


async def test_a_root_that_vanishes_keeps_everything_until_it_is_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").write_text(service("a"))
    async with reading(root) as reader:
        root.rename(tmp_path / "away")
        await reader.settle()
        assert reader.ports() == {"a": 80}
        assert [invalid.message for invalid in reader.invalid] == ["is gone; what was read from it stays in use"]
        (tmp_path / "away" / "a.yaml").write_text(service("a", 81))
        (tmp_path / "away").rename(root)
        await reader.settle()
        assert reader.ports() == {"a": 81}
        assert reader.invalid == ()


async def test_a_root_that_is_deleted_with_its_files_keeps_everything_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwctl.providers.file._ABSENT_ROOT_POLL", GRACE / 2)
    root = tmp_path / "root"
    root.mkdir()
    for name in "ab":
        (root / f"{name}.yaml").write_text(service(name))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.yaml").write_text(service("a", 81))
    async with reading(root) as reader:
        shutil.rmtree(root)
        await reader.settle()
        assert messages(reader) == {str(root): "is gone; what was read from it stays in use"}
        assert reader.ports() == {"a": 80, "b": 80}
        (tmp_path / "new").rename(root)
        await reader.until(lambda: len(reader.state) == 1)
        assert reader.ports() == {"a": 81}
        assert reader.invalid == ()


async def test_a_file_that_may_not_be_read_is_reported_until_it_may(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    async with reading(tmp_path) as reader:
        assert [invalid.message for invalid in reader.invalid] == ["cannot be read: permission denied"]
        path.chmod(0o600)
        await reader.next()
        assert reader.ports() == {"a": 80}
        assert reader.invalid == ()


async def test_a_fifo_is_reported_and_not_read(tmp_path: Path) -> None:
    path, fifo = tmp_path / "a.yaml", tmp_path / "fifo.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        os.mkfifo(fifo)
        await reader.next()
        assert messages(reader) == {"fifo.yaml": "cannot be read: not a regular file"}
        fifo.rename(path)
        await reader.settle()
        assert messages(reader) == {"a.yaml": "cannot be read: not a regular file"}
        assert reader.ports() == {"a": 80}
        (tmp_path / "new").write_text(service("a", 81))
        (tmp_path / "new").rename(path)
        await reader.settle()
        assert reader.ports() == {"a": 81}
        assert reader.invalid == ()


async def test_deleting_a_fifo_deletes_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "fifo").rename(path)
        await reader.next()
        path.unlink()
        await reader.settle()
        assert reader.state == {}
        assert reader.invalid == ()


async def test_what_is_no_regular_file_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "null.yaml").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "fifo.yaml")
    os.mkfifo(tmp_path / "fifo")
    async with reading(tmp_path) as reader:
        assert messages(reader) == dict.fromkeys(("fifo.yaml", "null.yaml"), "cannot be read: not a regular file")
    with pytest.raises(SourceError, match=r"fifo: not a regular file$"):
        FileSource(tmp_path / "fifo").read()


async def test_a_file_that_becomes_a_directory_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(service("a"))
    async with reading(tmp_path) as reader:
        path.unlink()
        path.mkdir()
        await reader.settle()
        assert reader.state == {}
        assert reader.invalid == ()


async def test_what_is_in_a_directory_that_may_not_be_read_is_kept(tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    (sub / "deep").mkdir(parents=True)
    for path in (sub / "a.yaml", sub / "b.yaml", sub / "deep" / "c.yaml"):
        path.write_text(service(path.stem))
    async with reading(tmp_path) as reader:
        with closed(sub):
            await reader.settle()
            assert messages(reader) == {"sub": "cannot be read: permission denied"}
            (tmp_path / "unrelated").mkdir()  # has everything looked at again
            await reader.settle()
            assert reader.ports() == {"a": 80, "b": 80, "c": 80}
        (sub / "a.yaml").write_text(service("a", 81))
        (sub / "b.yaml").unlink()
        await reader.settle()
        assert reader.ports() == {"a": 81, "c": 80}
        assert reader.invalid == ()


async def test_a_directory_that_may_not_be_read_at_the_start_is_reported_until_it_may(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text(service("a"))
    with closed(tmp_path / "sub"):
        reader = Reader(FileSource(tmp_path))
        await reader.next()
        assert messages(reader) == {"sub": "cannot be read: permission denied"}
    await reader.settle()
    assert reader.ports() == {"a": 80}
    assert reader.invalid == ()
    await reader.close()


@pytest.mark.parametrize("which", ["root", "parent"])
async def test_a_root_that_may_not_be_read_keeps_everything_until_it_may(tmp_path: Path, which: str) -> None:
    root = tmp_path / "parent" / "root"
    root.mkdir(parents=True)
    path = root / "a.yaml"
    path.write_text(service("a"))
    message = "cannot be read: permission denied; what was read from it stays in use"
    async with reading(root) as reader:
        with closed(root if which == "root" else root.parent):
            root.chmod(0o700)  # is told, unlike what happens to its parent
            await reader.settle()
            assert messages(reader) == {str(root): message}
            assert reader.ports() == {"a": 80}
        root.chmod(0o700)
        path.write_text(service("a", 81))
        await reader.until(lambda: not reader.invalid)
        assert reader.ports() == {"a": 81}


def test_a_file_that_cannot_be_looked_at_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.yaml"
    path.parent.mkdir()
    assert is_absent(path)
    with closed(path.parent):
        assert not is_absent(path)


async def test_a_link_that_leads_nowhere_for_good_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(service("a"))
    (tmp_path / "long.yaml").symlink_to("x" * 300)
    (tmp_path / "directory").symlink_to("x" * 300)
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    async with reading(tmp_path) as reader:
        assert reader.ports() == {"a": 80}
        assert messages(reader) == dict.fromkeys(("directory", "long.yaml"), "cannot be read: file name too long")
        (tmp_path / "long.yaml").unlink()
        (tmp_path / "directory").unlink()
        await reader.settle()
        assert reader.invalid == ()


async def test_a_lost_event_is_made_good_by_looking_at_everything(tmp_path: Path) -> None:
    paths = [tmp_path / f"s{number}.yaml" for number in range(40)]
    for path in paths:
        path.write_text(service(path.stem))
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    async with reading(tmp_path) as reader:
        last, other = paths[-1], tmp_path / "noise.yaml"
        for _ in range(limit // 2 + 10):  # two different events each
            other.touch()
            other.unlink()
        last.write_text(service(last.stem, 81))
        await reader.settle()
        assert reader.ports()[last.stem] == 81


async def test_a_burst_is_one_batch_while_the_reader_is_busy(tmp_path: Path) -> None:
    async with reading(tmp_path) as reader:
        for number in range(50):
            (tmp_path / f"{number}.yaml").write_text(service(f"s{number}"))
        batch = await reader.next()
        assert len(batch.changes) == 50


async def test_a_write_reaches_the_reader_at_once(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"{number}.yaml").write_text(service(f"s{number}"))
    async with reading(tmp_path) as reader:
        times = []
        for port in range(1, 51):
            waiting = asyncio.ensure_future(reader.next())
            await asyncio.sleep(0.002)
            started = time.perf_counter()
            (tmp_path / "7.yaml").write_text(service("s7", port))
            await waiting
            times.append(time.perf_counter() - started)
        assert sorted(times)[25] < 0.02  # about a millisecond on an idle machine


async def test_a_policy_that_cannot_be_read_is_there_and_keeps_its_last_good_version(tmp_path: Path) -> None:
    path, name = tmp_path / "p.json", Ref("BackendTLSPolicy", "default", "p")

    def write(hostname: str, service: str = "web") -> None:
        path.write_text(json.dumps(backend_tls_policy("p", service, "ca", hostname=hostname)))

    write("*")
    async with reading(tmp_path) as reader:
        assert is_unreadable(reader.state[name])
        assert [item.field for item in reader.invalid] == ["spec.validation.hostname"]
        path.write_text("{")
        await reader.next()
        assert is_unreadable(reader.state[name])
        write("web.test")
        await reader.next()
        assert not is_unreadable(reader.state[name])
        write("*")
        await reader.next()
        assert not is_unreadable(reader.state[name])
        assert [item.field for item in reader.invalid] == ["spec.validation.hostname"]
        write("*", "other")
        await reader.next()
        assert is_unreadable(reader.state[name])
        path.unlink()
        await reader.next()
        assert reader.state == {}
