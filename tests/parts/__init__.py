"""The programs that tests, demo and benchmark need: HAProxy, the Data Plane API and Helm.

In: nothing but the machine (PATH, `GWCTL_HAPROXY`, `GWCTL_DATAPLANEAPI`, `GWCTL_HELM`, its package registries). Out: a
`Part`, a program that runs and has the needed version, found or made once and then reused from a cache that
all clones share. Surprising: only the standard library is imported here, because `tests.parts.venv` makes the
virtual environment itself.
"""

from tests.parts.cache import PartError
from tests.parts.dataplaneapi import find_dataplaneapi
from tests.parts.haproxy import find_haproxy
from tests.parts.helm import find_helm
from tests.parts.part import Part

__all__ = ["Part", "PartError", "find_dataplaneapi", "find_haproxy", "find_helm"]
