"""The process's settings: environment variables and a `.env` file, read once into one frozen object.

Nothing else reads the environment. What the service can buy is not here but in the catalog.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from app.kit.addresses import Network, parse_networks
from app.kit.secrets import SecretsUnreadable, is_guessable, keep_secrets, read_secrets

_S = TypeVar("_S", bound=BaseSettings)

_PREFIX: Final = "DARKROOM_"
_ENV_FILE: Final = ".env"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not listened on
_MIN_SECRET: Final = 32
_API_KEY_TEXT: Final = re.compile(r"[!-~]+")
_GENERATE: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
_SECRETS: Final = ("api_key", "admin_key", "secret_key")
# The values of these may hold passwords, so a message never repeats them.
_UNREPEATABLE: Final = frozenset({*_SECRETS, "database_url", "redis_url", "storage_url", "otlp_endpoint"})

# What to write instead, where the type alone refuses a value.
_WANTED: Final[Mapping[str, str]] = {
    "config": "a path, such as config/gateway.yaml",
    "host": "an address to listen on, such as 127.0.0.1 or 0.0.0.0",
    "port": "a port from 1 to 65535, such as 8080",
    "data_dir": "a folder, such as ./data",
    "sync_timeout_s": "seconds from 1 to 86400, such as 600",
    "result_ttl_s": "seconds from 1 up, such as 604800 for a week",
    "lease_s": "seconds from 3 to 600, such as 30",
    "max_body_bytes": "bytes from 1024 up, such as 200000000",
    "max_image_bytes": "bytes from 1024 up, such as 50000000",
    "max_images": "a count from 1 up, such as 16",
    "max_pixels": "a count from 1 up, such as 100000000",
    "max_prompt_chars": "a count from 1 up, such as 32000",
    "metrics_public": "true or false",
    "log_format": "console or json",
    "log_level": "debug, info, warning or error",
}


_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 (recognised, not listened on)


class _FromEnvironment(BaseSettings):
    """Settings that are read from the environment, and from a `.env` file."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=_ENV_FILE,
        env_file_encoding="utf-8",
        # `DARKROOM_REDIS_URL=` in a compose file means: not set.
        env_ignore_empty=True,
        # The same .env holds vendor keys, and an orchestrator may add variables of its own.
        extra="ignore",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
    )


class SettingsInvalid(Exception):
    """The settings cannot be used; every mistake is a sentence that says what to set."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class Settings(_FromEnvironment):
    """One process's settings. Made by `load`, which also supplies the secrets that are generated."""

    config: Path = Path("config/gateway.yaml")
    """The catalog file: upstreams, models, routes, prices."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Listen address of `serve`. Loopback, so that nobody else reaches a gateway that was merely tried out."""

    port: int = Field(default=8080, ge=1, le=65535)
    """Listen port of `serve`; 8080 needs no privileges."""

    public_url: str = Field(default="")
    """How clients and vendors reach the gateway, without a trailing slash; in every URL handed out.

    By default `http://HOST:PORT`, with loopback in the place of a wildcard address.
    """

    data_dir: Path = Path("data")
    """Folder of the embedded database, stored pictures and generated secrets; absolute once loaded."""

    database_url: str = Field(default="", repr=False)
    """`postgresql://…`, or `sqlite:///FILE`: by default `darkroom.db` in the data directory. May hold a password."""

    redis_url: str | None = Field(default=None, repr=False)
    """`redis://…` or `rediss://…`; None: the workers run inside `serve`."""

    storage_url: str = ""
    """Where pictures are kept: `file:///FOLDER` (by default `files` in the data directory) or `s3://BUCKET/PREFIX`."""

    api_key: SecretStr = SecretStr("")
    """The bootstrap key of the team `default`: visible ASCII, 32 characters or more."""

    admin_key: SecretStr = SecretStr("")
    """The bootstrap key for the admin API; as `api_key`, and another one."""

    secret_key: SecretStr = SecretStr("")
    """Signs links and encrypts stored secrets: 32 bytes or more each, separated by commas, the newest first."""

    allow_networks: Annotated[tuple[Network, ...], NoDecode] = ()
    """Private networks that URLs from clients, results' URLs and webhooks may point to. None: least to attack."""

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()
    """Networks of reverse proxies whose `X-Forwarded-For` is believed, and that stand for many clients each.

    None: a client's address is the other end of its connection, for the header is anybody's to write.
    """

    sync_timeout_s: float = Field(default=600, ge=1, le=86_400)
    """Seconds a synchronous caller waits. Pictures take up to 180 s, and OpenAI's SDKs give up after 600."""

    result_ttl_s: float = Field(default=604_800, ge=1)
    """Seconds that results are kept, from the request on. A week: a batch of Friday is collected on Monday."""

    lease_s: float = Field(default=30, ge=3, le=600)
    """Seconds until the jobs of a worker that went silent are taken over. 30 outlives a long pause of a machine."""

    max_body_bytes: int = Field(default=200_000_000, ge=1024)
    """Largest request body: 16 pictures of an edit fit when they are of ordinary size. OpenAI's own bound."""

    max_image_bytes: int = Field(default=50_000_000, ge=1024)
    """Largest input picture and mask, OpenAI's own bound; also of a picture fetched from a client's URL."""

    max_images: int = Field(default=16, ge=1)
    """Most input pictures of one edit, OpenAI's own bound."""

    max_pixels: int = Field(default=100_000_000, ge=1)
    """Most pixels of a picture that is decoded: 400 MB of memory at 4 bytes each."""

    max_prompt_chars: int = Field(default=32_000, ge=1)
    """Longest prompt in characters, OpenAI's own bound; a model may allow less."""

    admin_listen: str | None = None
    """`HOST:PORT` of a second listener, for the admin API and `/metrics` alone; None: they share the first."""

    metrics_public: bool = False
    """Whether `/metrics` is answered without the admin key. Model names and volumes are nobody's business."""

    log_format: Literal["console", "json"] | None = None
    """Lines for people or one JSON object each; None: `console` where the log is a terminal, else `json`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe event that is logged; `info` tells each change of a job's state."""

    otlp_endpoint: str | None = Field(default=None, repr=False)
    """Where OpenTelemetry traces are sent (`http://HOST:4318`); None: tracing is off."""

    worker_listen: str | None = None
    """`HOST:PORT` where a worker answers `/metrics` and `/healthz`; None: nowhere. `serve` has both anyway."""

    worker_slots: int = Field(default=100, ge=1, le=10_000)
    """Jobs that one worker forwards at once. Nearly all of that time is waiting, so memory bounds it, not the CPU."""

    _variables: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, *, make_secrets: bool = True) -> Self:
        """Read the environment and `.env`, and on the embedded default find the secrets, or generate them.

        Args:
            make_secrets: False leaves them empty where none are kept yet, for commands that only look.

        Raises:
            SettingsInvalid: with every mistake found; nothing has been written then.
        """
        settings = _checked(cls)
        if not settings.is_embedded:
            return settings
        try:
            kept = (keep_secrets if make_secrets else read_secrets)(settings.secrets_file)
        except SecretsUnreadable as exc:
            raise SettingsInvalid([str(exc)]) from exc
        if kept is None:
            return settings
        # What the operator sets by hand wins over what was generated.
        missing = {
            field: SecretStr(getattr(kept, field))
            for field in _SECRETS
            if not getattr(settings, field).get_secret_value()
        }
        return settings.model_copy(update=missing)

    @property
    def is_embedded(self) -> bool:
        """Whether this is one process with SQLite, which generates its secrets and migrates by itself."""
        return _is_sqlite(self.database_url)

    @property
    def has_own_workers(self) -> bool:
        """Whether workers run inside `serve`, because no Redis would wake others."""
        return self.redis_url is None

    @property
    def secrets_file(self) -> Path:
        """Where generated secrets are kept on the embedded default."""
        return self.data_dir / "secrets.json"

    @property
    def lock_file(self) -> Path:
        """What a process on the embedded default holds locked, so that no second one serves the same data."""
        return self.data_dir / "darkroom.lock"

    @property
    def spool_dir(self) -> Path:
        """Where pictures pass through on their way; nothing in it outlives the process."""
        return self.data_dir / "spool"

    @property
    def secret_keys(self) -> tuple[bytes, ...]:
        """The secrets of `secret_key`, the newest first; the first one signs."""
        return _secret_keys(self.secret_key.get_secret_value())

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of the admin listener; None when it shares the first."""
        return None if self.admin_listen is None else _host_and_port(self.admin_listen)

    @property
    def worker_address(self) -> tuple[str, int] | None:
        """Host and port where a worker can be watched; None when it cannot."""
        return None if self.worker_listen is None else _host_and_port(self.worker_listen)

    def variable(self, name: str) -> str | None:
        """The value of any variable of the environment or `.env`; None when it is unset or empty."""
        return self._variables.get(name)

    def variables(self, names: Iterable[str]) -> dict[str, str]:
        """The values of those `names` that are set, for what the catalog names: the vendors' keys."""
        return {name: self._variables[name] for name in names if name in self._variables}

    def aws_variables(self) -> dict[str, str]:
        """Every `AWS_*` variable, for storage in a bucket."""
        return {name: value for name, value in self._variables.items() if name.startswith("AWS_")}

    def secret_values(self) -> tuple[str, ...]:
        """Every secret of these settings as it is written, so that logs can leave them out."""
        keys = [key.decode() for key in self.secret_keys]
        return (self.api_key.get_secret_value(), self.admin_key.get_secret_value(), *keys)

    def misspelled_names(self) -> dict[str, str]:
        """Variables that look like settings and are none -> the setting that was probably meant."""
        known = [f"{_PREFIX}{field.upper()}" for field in type(self).model_fields]
        return {
            name: meant[0]
            for name in sorted(self._variables)
            if name.startswith(_PREFIX)
            and name not in known
            and (meant := difflib.get_close_matches(name, known, n=1, cutoff=0.9))
        }

    def model_post_init(self, _context: Any, /) -> None:
        """Keep the variables of this moment, so that no later change is half seen."""
        self._variables = _environment()

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("public_url", mode="after")
    @classmethod
    def _reachable(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return _url_of(info.data.get("host", ""), info.data.get("port", 0))
        return _http_url(value, "PUBLIC_URL", "http://localhost:8080")

    @field_validator("database_url", mode="after")
    @classmethod
    def _supported_database(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return f"sqlite:///{info.data['data_dir'] / 'darkroom.db'}" if "data_dir" in info.data else ""
        scheme, _, rest = value.partition("://")
        match scheme.partition("+")[0]:
            case "postgresql" | "postgres" if rest:
                return f"postgresql://{rest}"
            case "sqlite" if rest.startswith("/") and rest.strip("/") and ":memory:" not in rest:
                return f"sqlite:///{Path(rest[1:]).expanduser().absolute()}"
            case _:
                raise ValueError(
                    "is of no kind that Darkroom knows. Set it to postgresql://USER:PASSWORD@HOST/NAME, "
                    "or leave it out for a SQLite file in the data directory."
                )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _supported_redis(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not value.startswith(("redis://", "rediss://")):
            raise ValueError("is no Redis address. Set it to redis://HOST:6379, or leave it out.")
        if _is_sqlite(info.data.get("database_url", "")):
            raise ValueError(
                "is set, but the database is SQLite, which serves one process only. Set "
                "DARKROOM_DATABASE_URL to a postgresql:// address too, or leave DARKROOM_REDIS_URL out."
            )
        return value

    @field_validator("storage_url", mode="after")
    @classmethod
    def _supported_storage(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return (info.data["data_dir"] / "files").as_uri() if "data_dir" in info.data else ""
        parts = urlsplit(value)
        is_folder = parts.scheme == "file" and parts.netloc in {"", "localhost"} and len(parts.path) > 1
        is_bucket = parts.scheme == "s3" and bool(parts.netloc)
        if not (is_folder or is_bucket) or parts.query or parts.fragment or parts.username:
            raise ValueError(
                "is no place for pictures. Set it to file:///FOLDER or s3://BUCKET/PREFIX, without user "
                "or query; the bucket's endpoint and keys stand in the AWS_* variables."
            )
        return value

    @field_validator("api_key", "admin_key", mode="after")
    @classmethod
    def _strong_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text, name = value.get_secret_value(), f"{_PREFIX}{(info.field_name or '').upper()}"
        if not text:
            _require(info)
            return value
        if len(text) < _MIN_SECRET or (not _may_be_embedded(info) and is_guessable(text)):
            raise ValueError(
                f"is too weak. Set it to {_MIN_SECRET} or more random characters, made for example "
                f"by: {_GENERATE}"
            )
        if not _API_KEY_TEXT.fullmatch(text):
            raise ValueError("holds a space or a character beyond ASCII, which no header can carry.")
        if info.field_name == "admin_key" and info.data.get("api_key") == value:
            raise ValueError(f"is the same as DARKROOM_API_KEY. Set {name} to a key of its own.")
        return value

    @field_validator("secret_key", mode="after")
    @classmethod
    def _strong_secret(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text = value.get_secret_value()
        if not text:
            _require(info)
            return value
        for secret in _secret_keys(text) or (b"",):
            is_weak = not _may_be_embedded(info) and is_guessable(secret.decode())
            if len(secret) < _MIN_SECRET or is_weak:
                raise ValueError(
                    f"is too weak. Set it to {_MIN_SECRET} or more random bytes, each, if there are several "
                    f"between commas; made for example by: {_GENERATE}"
                )
        return value

    @field_validator("allow_networks", "trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return parse_networks(text for text in value.split(",") if text.strip())
        except ValueError as exc:
            raise ValueError(
                f"cannot be read: {exc}. Set it to networks such as 10.0.0.0/8,fd00::/8."
            ) from exc

    @field_validator("admin_listen", "worker_listen", mode="after")
    @classmethod
    def _listenable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        host, port = _host_and_port(value)
        served = info.data.get("host")
        is_taken = port == info.data.get("port") and (host == served or _EVERYWHERE & {host, served})
        if info.field_name == "admin_listen" and is_taken:
            raise ValueError(
                f"is taken: {served}:{port} serves everybody. Set it to another port, or leave it out to serve "
                "operators there too."
            )
        return value

    @field_validator("otlp_endpoint", mode="after")
    @classmethod
    def _traceable(cls, value: str | None) -> str | None:
        return None if value is None else _http_url(value, "OTLP_ENDPOINT", "http://localhost:4318")

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class ClientSettings(_FromEnvironment):
    """What the command needs as a client of a gateway: its address, and the bootstrap keys where they are known.

    A client's machine needs no database and no secrets, so nothing here is required and nothing is generated.
    """

    host: str = "127.0.0.1"
    """As in `Settings`, for the address of a gateway on this machine."""

    port: int = Field(default=8080, ge=1, le=65535)
    """As in `Settings`."""

    public_url: str = ""
    """Where the gateway is reached, without a trailing slash; by default `http://HOST:PORT`."""

    admin_listen: str | None = None
    """As in `Settings`: where a gateway on this machine serves its operators, when not at `public_url`."""

    data_dir: Path = Path("data")
    """Where a gateway on this machine has left its generated keys."""

    api_key: SecretStr | None = None
    """The bootstrap API key, from the environment or the data directory; None when neither has one."""

    admin_key: SecretStr | None = None
    """The bootstrap admin key; as `api_key`."""

    @classmethod
    def load(cls) -> Self:
        """Read the environment, `.env`, and the keys that a gateway started in this folder has kept.

        Raises:
            SettingsInvalid: a value, or the file of kept keys, cannot be read.
        """
        settings = _checked(cls)
        try:
            kept = read_secrets(settings.data_dir.expanduser() / "secrets.json")
        except SecretsUnreadable as exc:
            raise SettingsInvalid([str(exc)]) from exc
        if kept is None:
            return settings
        return settings.model_copy(
            update={
                "api_key": settings.api_key or SecretStr(kept.api_key),
                "admin_key": settings.admin_key or SecretStr(kept.admin_key),
            }
        )

    @property
    def admin_url(self) -> str:
        """Where operators are served."""
        return self.public_url if self.admin_listen is None else _url_of(*_host_and_port(self.admin_listen))

    @field_validator("public_url", mode="after")
    @classmethod
    def _reachable(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return _url_of(info.data.get("host", ""), info.data.get("port", 0))
        return _http_url(value, "PUBLIC_URL", "http://localhost:8080")

    @field_validator("admin_listen", mode="after")
    @classmethod
    def _listenable(cls, value: str | None) -> str | None:
        if value is not None:
            _host_and_port(value)
        return value


def _checked(kind: type[_S]) -> _S:
    try:
        return kind()
    except ValidationError as exc:
        raise SettingsInvalid(_sentence(error) for error in exc.errors(include_url=False)) from exc
    except (SettingsError, UnicodeDecodeError, OSError) as exc:
        raise SettingsInvalid([f"The file {_ENV_FILE!r} cannot be read: {exc}"]) from exc


def _sentence(error: ErrorDetails) -> str:
    field = str(error["loc"][0])
    name = f"{_PREFIX}{field.upper()}"
    if error["type"] == "value_error":
        return f"{name} {error['ctx']['error']}"
    value = "" if field in _UNREPEATABLE else f" {error['input']!r}"
    return f"{name} cannot be{value}. Set it to {_WANTED.get(field, 'another value')}."


def _environment() -> dict[str, str]:
    """Every variable that has a value; the environment wins over the file."""
    found = {**dotenv_values(_ENV_FILE, encoding="utf-8"), **os.environ}
    return {name: value for name, value in found.items() if value}


def _require(info: ValidationInfo) -> None:
    if not _may_be_embedded(info):
        raise ValueError(
            f"is not set. Only the embedded default makes up its own; set it to {_MIN_SECRET} or more random "
            f"characters, made for example by: {_GENERATE}"
        )


def _may_be_embedded(info: ValidationInfo) -> bool:
    """Whether secrets may be left to us; an unreadable database address is a mistake of its own, told once."""
    return _is_sqlite(info.data.get("database_url", "sqlite:"))


def _is_sqlite(url: str) -> bool:
    return url.startswith("sqlite:")


def _secret_keys(text: str) -> tuple[bytes, ...]:
    return tuple(part.strip().encode() for part in text.split(",") if part.strip())


def _url_of(host: str, port: int) -> str:
    name = _WILDCARDS.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _http_url(text: str, name: str, example: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"is no http:// or https:// address. Set {_PREFIX}{name} to one such as {example}.")
    return text.rstrip("/")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"cannot be {text!r}. Set it to HOST:PORT, such as 127.0.0.1:8081.")
    return host.strip("[]"), int(port)
