"""gwctl's own client and its stand-in of an API server, measured against a real one."""

import subprocess
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster

REPOSITORY = Path(__file__).parents[2]


def test_the_stand_in_of_the_api_server_is_like_a_real_one(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "tests/kube/test_contract.py", "--kubeconfig"]
    command.append(str(cluster.kubeconfig))
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-5000:]
