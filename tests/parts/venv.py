"""`python3 -m tests.parts.venv FOLDER REQUIREMENTS`: the virtual environment that everything else runs in.

In: any Python 3.11 or newer, the locked requirements. Out: a folder with exactly those packages (hashes
checked) and gwctl itself, editable. Surprising: Debian's python3 comes without pip and ensurepip, so pip is
then taken from Debian's python3-pip-whl.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.parts.apt import PrivateApt, unpack
from tests.parts.cache import PartError, building, cache_folder, locked, say

NAME = "python"
WORTH_SHOWING = ("Downloading ", "Using cached ", "ERROR", "WARNING")


def make_venv(folder: Path, requirements: Path) -> None:
    """Make or update a virtual environment; `PartError` when the packages cannot be had."""
    version = ".".join(map(str, sys.version_info[:3]))
    python = folder / "bin" / "python"
    if not _runs(python):
        say(NAME, f"making {folder.name} with Python {version} …")
        shutil.rmtree(folder, ignore_errors=True)
        with_pip = ["--without-pip"] if importlib.util.find_spec("ensurepip") is None else []
        _check([sys.executable, "-m", "venv", *with_pip, folder], "python3 -m venv")
    pip = [python, "-m", "pip"] if _runs(python, "-m", "pip") else [python, _pip_of_debian()]
    count = sum("==" in line for line in requirements.read_text(encoding="utf-8").splitlines())
    say(NAME, f"installing {count} locked packages ({requirements.name}) …")
    install = [*pip, "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    _stream([*install, "--require-hashes", "--only-binary=:all:", "--requirement", requirements])
    _stream([*install, "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."])
    say(NAME, f"ready: {folder.name}")


def _runs(python: Path, *arguments: str) -> bool:
    """Whether a virtual environment is whole and of this Python's version."""
    same_version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    command: list[str | Path] = [python, *(arguments or ("-c", same_version))]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _pip_of_debian() -> Path:
    """pip as a wheel that runs unpacked (`python pip.whl/pip`), from Debian's package or the cache."""
    installed = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    entry = cache_folder() / "pip"
    with locked("pip"):
        if not installed and not entry.exists():
            say(NAME, "this Python has no pip, taking Debian's python3-pip-whl …")
            with building(entry) as folder, tempfile.TemporaryDirectory() as temporary:
                apt = PrivateApt(Path(temporary) / "apt")
                apt.update()
                for file in apt.download(["python3-pip-whl"], Path(temporary)):
                    unpack(file, folder)
    wheels = installed or sorted(entry.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise PartError("this Python has no pip and Debian's python3-pip-whl holds none: install python3-venv")
    return wheels[-1] / "pip"


def _check(command: list[str | Path], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise PartError(f"{what} failed: {(done.stderr + done.stdout).strip()[-300:]}")


def _stream(command: list[str | Path]) -> None:
    """Run pip and pass on the lines that tell a person how far it is."""
    env = {**os.environ, "PIP_NO_COLOR": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        env=env,
    ) as pip:
        assert pip.stdout is not None
        lines = []
        for line in pip.stdout:
            lines.append(line)
            if line.strip().startswith(WORTH_SHOWING) and ".metadata" not in line:
                say(NAME, line.strip())
    if pip.returncode:
        raise PartError(f"pip failed:\n{''.join(lines)[-2000:]}")


def main(arguments: list[str]) -> int:
    folder, requirements = map(Path, arguments)
    try:
        make_venv(folder, requirements)
    except PartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
