"""gwctl-dataplane: what runs the Data Plane API in a pod."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "haproxy" / "dataplane.sh"
API = """\
#!/bin/sh
trap 'echo stopped; exit 3' TERM
echo "$@"
while :; do sleep 0.01; done
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_every_wish_to_stop_reaches_the_data_plane_api(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "dataplaneapi"
    program.write_text(API, encoding="utf-8")
    program.chmod(0o755)
    left = tmp_path / "dataplane.sock"
    left.touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "GWCTL_DATA": str(tmp_path), "GWCTL_RUN": str(tmp_path)}
    with subprocess.Popen([SCRIPT], env=environment, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == f"-f {tmp_path}/dataplaneapi.yaml\n"
        assert not left.exists()
        script.send_signal(number)
        assert script.stdout.read() == "stopped\n"
        assert script.wait(timeout=10) == 3


def test_its_end_is_the_end_of_the_container(tmp_path: Path) -> None:
    program = tmp_path / "dataplaneapi"
    program.write_text("#!/bin/sh\nexit 7\n", encoding="utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([SCRIPT], env={"PATH": path, "GWCTL_RUN": str(tmp_path)}, timeout=10)
    assert done.returncode == 7
