import pytest

from tests.chart.rendering import Helm
from tests.parts import PartError, find_helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm, with the chart."""
    try:
        return Helm(find_helm(), tmp_path_factory.mktemp("helm"))
    except PartError as error:
        pytest.exit(str(error), returncode=1)
