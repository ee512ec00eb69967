"""docker/haproxy/Dockerfile, as far as it says what is wrong with a base image."""

import re
import shutil
import subprocess
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docker" / "haproxy" / "Dockerfile").read_text(encoding="utf-8")


def test_a_base_without_curl_is_one_sentence(tmp_path: Path) -> None:
    script = re.search(r"AS release\n.*?\nRUN (.*?[^\\])\n", TEXT, re.DOTALL)
    shell = shutil.which("sh")
    assert script is not None and shell is not None
    done = subprocess.run([shell, "-c", script[1]], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the base image has no curl")
    assert done.stderr.count("\n") == 1
