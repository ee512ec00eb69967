"""The HAProxy Data Plane API: client, reader and executor. The only package that knows httpx.

DataPlaneError
├── Unavailable         the API or HAProxy does not answer; transient
├── VersionConflict     somebody else changed the configuration; transient
├── Refused             the API refused a call
│   ├── NotFound        what the call names is not there
│   └── AlreadyExists   what the call would add is there
├── ReloadFailed        HAProxy did not load a configuration that the API had accepted
└── UnsupportedVersion  HAProxy or the Data Plane API is too old
"""

from gwctl.dataplane.error import (
    AlreadyExists,
    DataPlaneError,
    ForeignLua,
    NotFound,
    Refused,
    ReloadFailed,
    Unavailable,
    UnsupportedVersion,
    VersionConflict,
)

__all__ = [
    "AlreadyExists",
    "DataPlaneError",
    "ForeignLua",
    "NotFound",
    "Refused",
    "ReloadFailed",
    "Unavailable",
    "UnsupportedVersion",
    "VersionConflict",
]
