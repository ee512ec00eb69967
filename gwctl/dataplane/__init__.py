"""The HAProxy Data Plane API: client, reader and executor. The only package that knows httpx.

DataPlaneError
├── Unavailable         the API or HAProxy does not answer; transient
├── VersionConflict     somebody else changed the configuration; transient
├── Refused             the API refused a call
│   ├── NotFound        what the call names is not there
│   ├── AlreadyExists   what the call would add is there
│   ├── ConfigurationRefused  a section, or the whole configuration, is not taken
│   └── TooManyTransactions   as many are open as the API allows
├── CertificateRefused  HAProxy does not take a certificate
├── ReloadFailed        HAProxy did not load a configuration that the API had accepted
├── ForeignLua, ForeignPath  somebody else's setting is where gwctl's must be
└── UnsupportedVersion  HAProxy or the Data Plane API is too old
"""

from gwctl.dataplane.error import (
    AlreadyExists,
    CertificateRefused,
    ConfigurationRefused,
    DataPlaneError,
    ForeignLua,
    ForeignPath,
    NotFound,
    Refused,
    ReloadFailed,
    TooManyTransactions,
    Unavailable,
    UnsupportedVersion,
    VersionConflict,
)

__all__ = [
    "AlreadyExists",
    "CertificateRefused",
    "ConfigurationRefused",
    "DataPlaneError",
    "ForeignLua",
    "ForeignPath",
    "NotFound",
    "Refused",
    "ReloadFailed",
    "TooManyTransactions",
    "Unavailable",
    "UnsupportedVersion",
    "VersionConflict",
]
