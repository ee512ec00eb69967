"""The configuration: one model, of which flags, environment variables and file keys are three spellings.

In: flags, the environment, a YAML file. Out: a frozen `Config`. A flag goes before a variable, a variable
before the file, the file before the default. The surprising fact: `OPTIONS` is made from the model, so that
no spelling can be forgotten; an option ``x_y`` is ``--x-y``, ``GWCTL_X_Y`` and ``x-y``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from gwctl.api.gateway import CONTROLLER_PATTERN
from gwctl.api.sensitive import Sensitive
from gwctl.api.wire import is_label, is_subdomain
from gwctl.haproxy.program import Listening

ENVIRONMENT_PREFIX = "GWCTL_"

_URL = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?|unix:///[^\s]+")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]*):([0-9]{1,5})")


class ConfigError(Exception):
    """The configuration is wrong. The message is one sentence that names the option."""


def _check(test: Callable[[str], bool], message: str) -> AfterValidator:
    def check(value: str) -> str:
        if not test(value):
            raise PydanticCustomError("form", "must be {message}", {"message": message})
        return value

    return AfterValidator(check)


def _is_address(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match[2]) <= 65535


def _is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def _is_source(text: str) -> bool:
    return text == "kubernetes" or (text.startswith("file:") and len(text) > len("file:"))


def _is_controller_name(text: str) -> bool:
    return re.fullmatch(CONTROLLER_PATTERN.removeprefix("^").removesuffix("$"), text) is not None


def _seconds(value: object) -> object:
    """Let ``30s`` be 30."""
    return value.removesuffix("s") if isinstance(value, str) else value


def _list(value: object) -> object:
    """Let ``a,b`` be a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _mapping(value: object) -> object:
    """Let ``a=1,b=2`` be a mapping. Values that hold a comma can be written in the file only."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not separator or not key.strip() for key, separator, _ in pairs):
        raise PydanticCustomError("mapping", "must be KEY=VALUE,KEY=VALUE")
    return {key.strip(): item.strip() for key, _, item in pairs}


def _is_object_name(text: str) -> bool:
    namespace, _, name = text.partition("/")
    return not text or (is_label(namespace) and is_label(name))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


Texts = Annotated[Mapping[str, str], BeforeValidator(_mapping)]


class Config(BaseModel):
    """Everything that can be configured."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    source: Annotated[str, _check(_is_source, "file:PATH or kubernetes")] = Field(
        "kubernetes", description="where resources come from: file:PATH (a directory or a file) or kubernetes"
    )
    gateway_controller_name: Annotated[
        str, _check(_is_controller_name, "a DNS name, '/' and a path, such as example.com/gateways")
    ] = Field("gwctl.io/gateway-controller", description="the controllerName of the GatewayClasses to serve")
    dataplane_url: Annotated[str, _check(_is_url, "http://HOST:PORT or unix:///PATH, without credentials")] = Field(
        "http://127.0.0.1:5555", description="the HAProxy Data Plane API: http://HOST:PORT or unix:///PATH"
    )
    dataplane_username: str = Field("admin", description="the user at the Data Plane API")
    dataplane_password: Sensitive = Field(Sensitive(""), description="the user's password; a file is the better place")
    dataplane_password_file: str = Field("", description="a file with the user's password")
    http_slots: int = Field(
        128, ge=1, le=20_000, description="how many Services with HTTP fit before HAProxy is reloaded"
    )
    tcp_slots: int = Field(32, ge=1, le=20_000, description="how many Services with TCP fit before HAProxy is reloaded")
    http_listeners: int = Field(
        32, ge=1, le=1_000, description="how many ports of Gateways with HTTP fit before HAProxy is reloaded"
    )
    https_listeners: int = Field(
        32, ge=1, le=1_000, description="how many ports of Gateways with HTTPS fit before HAProxy is reloaded"
    )
    tls_listeners: int = Field(
        8, ge=1, le=1_000, description="how many ports of Gateways with TLS listeners fit before HAProxy is reloaded"
    )
    tcp_listeners: int = Field(
        16, ge=1, le=5_000, description="how many ports of Gateways with TCP fit before HAProxy is reloaded"
    )
    namespaces: Annotated[
        tuple[Annotated[str, _check(is_label, "names of namespaces")], ...], BeforeValidator(_list)
    ] = Field((), description="the namespaces to watch, separated by commas; all when empty")
    pod_namespace: Annotated[str, _check(lambda text: not text or is_label(text), "the name of a namespace")] = Field(
        "", description="gwctl's own namespace, for Gateways' Services and the Lease"
    )
    identity: str = Field("", description="this replica's name in the Lease; the host's name when empty")
    lease_name: Annotated[str, _check(is_subdomain, "the name of a Lease")] = Field(
        "gwctl", description="the Lease by which replicas choose a leader"
    )
    gateway_service_type: Literal["LoadBalancer", "ClusterIP", "NodePort", "none"] = Field(
        "LoadBalancer",
        description="the type of the Service that each Gateway gets; none: listeners bind their own ports",
    )
    gateway_service_annotations: Texts = Field(
        {}, description="annotations of Gateways' Services, KEY=VALUE separated by commas"
    )
    gateway_service_selector: Texts = Field(
        {}, description="labels of gwctl's pods, which Gateways' Services select, KEY=VALUE separated by commas"
    )
    gateway_service_external_traffic_policy: Literal["", "Cluster", "Local"] = Field(
        "", description="externalTrafficPolicy of Gateways' Services; Local keeps clients' addresses"
    )
    gateway_service_aliases: bool = Field(
        True, description="whether a Gateway also gets a Service of type ExternalName in its own namespace"
    )
    cluster_domain: str = Field("cluster.local", description="the domain of Services' names")
    publish_service: Annotated[str, _check(_is_object_name, "NAMESPACE/NAME of a Service")] = Field(
        "", description="NAMESPACE/NAME of the Service of gwctl's pods; its endpoints are the addresses of Gateways "
        "that have no Services"
    )  # fmt: skip
    shutdown_delay: Annotated[float, BeforeValidator(_seconds)] = Field(
        0.0, ge=0, le=3_600, description="seconds to go on, no longer ready, after SIGTERM"
    )
    ipv6: bool = Field(False, description="let listeners without an address listen on IPv6 too")
    http3: bool = Field(False, description="let HTTPS listeners take HTTP/3 too, which HAProxy must be built with")
    proxy_protocol_from: Annotated[
        tuple[Annotated[str, _check(_is_network, "networks such as 10.0.0.0/8")], ...], BeforeValidator(_list)
    ] = Field(
        (), description="the networks of load balancers that speak the PROXY protocol, as CIDRs separated by commas"
    )
    resync_interval: Annotated[float, BeforeValidator(_seconds)] = Field(
        30.0, gt=0, le=86_400, description="seconds between two checks of all that HAProxy has"
    )
    metrics_address: Annotated[str, _check(_is_address, "HOST:PORT or :PORT")] = Field(
        ":9090", description="where /metrics, /livez and /readyz are served"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least level that is logged"
    )
    log_format: Literal["text", "json"] = Field("text", description="how log lines are written")

    @property
    def listening(self) -> Listening:
        """How frontends listen."""
        return Listening(self.ipv6, self.http3, self.proxy_protocol_from)

    def read_password(self) -> str:
        """Give the password; a file is read each time. Raises `ConfigError`."""
        if not self.dataplane_password_file:
            return self.dataplane_password.reveal()
        try:
            return Path(self.dataplane_password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise ConfigError(f"dataplane-password-file {self.dataplane_password_file}: {reason}") from None


class Option(NamedTuple):
    """One option and its spellings. ``default`` is for people, empty where there is none worth saying."""

    field: str
    key: str
    flag: str
    variable: str
    description: str
    default: str


def _build_options() -> Iterable[Option]:
    for name, info in Config.model_fields.items():
        key = name.replace("_", "-")
        default = "" if isinstance(info.default, Sensitive | tuple | Mapping) else f"{info.default}"
        yield Option(
            name,
            key,
            f"--{key}",
            ENVIRONMENT_PREFIX + name.upper(),
            info.description or "",
            default.removesuffix(".0"),
        )


OPTIONS: Mapping[str, Option] = {option.field: option for option in _build_options()}
"""All options by their field in `Config`."""

CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
"""Names the configuration file where ``--config`` does not."""

_ALTERNATIVES = frozenset({"dataplane_password", "dataplane_password_file"})


def load_config(flags: Mapping[str, object], environment: Mapping[str, str], path: Path | None) -> Config:
    """Put the configuration together; ``flags`` by field. Raises `ConfigError`."""
    if path is None and environment.get(CONFIG_VARIABLE):
        path = Path(environment[CONFIG_VARIABLE])
    given: dict[str, tuple[object, str]] = {}
    for level in (_read_file(path), _read_environment(environment), _read_flags(flags)):
        if _ALTERNATIVES & level.keys():
            if level.keys() >= _ALTERNATIVES:
                raise ConfigError("dataplane-password and dataplane-password-file exclude each other")
            for field in _ALTERNATIVES:
                given.pop(field, None)
        given.update(level)
    try:
        return Config(**{field: value for field, (value, _) in given.items()})
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        field = str(detail["loc"][0])
        raise ConfigError(f"{given[field][1]}: {_message(detail['msg'])}") from None


def _message(text: str) -> str:
    text = text.replace("Input should be", "must be")
    return text[:1].lower() + text[1:]


def _read_flags(flags: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    return {field: (value, OPTIONS[field].flag) for field, value in flags.items() if value is not None}


def _read_environment(environment: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    return {
        option.field: (environment[option.variable], option.variable)
        for option in OPTIONS.values()
        if option.variable in environment
    }


def _read_file(path: Path | None) -> dict[str, tuple[object, str]]:
    if path is None:
        return {}
    try:
        content: Any = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path}: {where}{getattr(error, 'problem', None) or 'is not YAML'}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: must be a mapping of options")
    found: dict[str, tuple[object, str]] = {}
    for key, value in content.items():
        field = str(key).replace("-", "_")
        if field not in OPTIONS:
            raise ConfigError(f"{path}: unknown key {key!s}")
        if field in found:
            raise ConfigError(f"{path}: {OPTIONS[field].key} is there twice")
        if value is not None:
            found[field] = (value, f"{path}: {OPTIONS[field].key}")
    return found


def split_address(address: str) -> tuple[str | None, int]:
    """Split a valid ``host:port``; None stands for all addresses."""
    host, _, port = address.rpartition(":")
    return host.strip("[]") or None, int(port)
