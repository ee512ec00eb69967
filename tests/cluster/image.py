"""Images without a registry: an OCI archive from files, as containerd and buildah take it.

In: names, an archive of a root file system or single programs. Out: one `.tar` file. Surprising: names must be fully
qualified (`gwctl.test/pause:test`); a short one spoils every other name of the same image in containerd.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OCI = "application/vnd.oci.image"


def pack_program(archive: Path, names: Sequence[str], program: Path, user: str = "65532:65532") -> None:
    """An image of nothing but one static program."""
    pack(archive, names, layer({f"/{program.name}": program}), {"User": user, "Entrypoint": [f"/{program.name}"]})


def layer(files: Mapping[str, Path]) -> bytes:
    """A layer that holds these programs at these places."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("etc", 0o755), ("tmp", 0o1777), ("var", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, path in files.items():
            tar.addfile(_file(name.lstrip("/"), path.stat().st_size, 0o755), io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def pack(archive: Path, names: Sequence[str], content: bytes, config: Mapping[str, object]) -> None:
    """Write an image of one layer, which is the text of a tar archive."""
    settings: dict[str, object] = {"Env": [SEARCH_PATH], "WorkingDir": "/"}
    settings.update(config)
    machine = {"architecture": ARCHITECTURES[platform.machine()], "os": "linux"}
    image = _json(
        {
            **machine,
            "created": "2026-01-01T00:00:00Z",
            "history": [{"created_by": "gwctl's tests"}],  # buildah reuses no layers above an image without one
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _described(f"{_OCI}.config.v1+json", image),
            "layers": [_described(f"{_OCI}.layer.v1.tar", content)],
        }
    )
    described = _described(f"{_OCI}.manifest.v1+json", manifest)
    named = [
        {
            **described,
            "platform": machine,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
            },
        }
        for name in names
    ]
    index = _json({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": named})
    written = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    written |= {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (image, manifest, content)}
    with tarfile.open(archive, "w") as tar:
        for name, text in written.items():
            tar.addfile(_file(name, len(text), 0o644), io.BytesIO(text))


def _file(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _described(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
