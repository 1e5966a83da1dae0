"""Settings from the environment, made once at the edge and passed in. Knows what every process shares, no more."""

from __future__ import annotations

import difflib
import inspect
import ipaddress
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HART_"
# What Kubernetes adds to every container for a Service whose name begins with "hart".
_SERVICE_LINK = re.compile(r"(_SERVICE_(HOST|PORT)(_.*)?|_PORT_\d+_(TCP|UDP)(_.*)?)$")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
MAX_INT32 = 2**31 - 1  # gRPC holds its numbers in 32 bits
MAX_SECONDS = MAX_INT32 // 1000  # seconds: it counts milliseconds


class SettingsError(Exception):
    """One or more variables have a value that cannot be used; the message names each with its value."""


class Settings(BaseSettings):
    """Base of all settings: read from `HART_<FIELD>`, frozen, each field explained by the sentence under it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        """Blanks and line ends around a value come from environment files, byte-order marks from their editors. A value
        of these alone stays what it is: it was given, and is not absent."""
        return (value.strip(" \t\r\n\ufeff") or value) if isinstance(value, str) else value

    @classmethod
    def load(cls, **values: Any) -> Self:
        """The settings of this environment; `values` win over it. Raises SettingsError naming variable and value."""
        try:
            return cls(**values)
        except ValidationError as error:
            given = {**{k.upper(): v for k, v in os.environ.items()}, **{_variable(k): v for k, v in values.items()}}
            raise SettingsError("\n".join(cls._explain(e, given) for e in error.errors())) from None

    @classmethod
    def _explain(cls, error: Any, given: dict[str, Any]) -> str:
        reason = str(error["msg"]).removeprefix("Value error, ")
        if not error["loc"]:
            return reason
        field = str(error["loc"][0])
        variable = _variable(field)
        info = cls.model_fields.get(field)
        secret = info is not None and "Secret" in str(info.annotation)
        value = "***" if secret else without_credentials(repr(given.get(variable)))
        return f"{variable}={value}: {without_credentials(reason)}"

    @contextmanager
    def as_settings_error(self, field: str, *kinds: type[Exception]) -> Iterator[None]:
        """As `as_settings_error`, for errors that come of this field's value; the line names the variable and the value."""
        try:
            with as_settings_error(*kinds):
                yield
        except SettingsError as error:
            reason = str(error).removeprefix(f"{field}: ")
            raise SettingsError(f"{_variable(field)}={getattr(self, field)!r}: {reason}") from error

    @classmethod
    def help_text(cls) -> str:
        """All variables, each with its default and its sentence, for people."""
        lines = [inspect.getdoc(cls) or ""]
        for name, field in cls.model_fields.items():
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            lines.append(f"\n{_variable(name)}{' (absent)' if default is None else f'={default}'}")
            lines += textwrap.wrap(field.description or "", 110, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    @classmethod
    def unknown(cls) -> dict[str, str]:
        """Variables of this environment that begin with HART_ and are no setting of this process, each with the nearest
        right name or ""."""
        known = {_variable(name) for name in cls.model_fields}
        unknown = [k for k in os.environ if k.upper().startswith(PREFIX) and k.upper() not in known]
        unknown = [k for k in unknown if not _SERVICE_LINK.search(k.upper())]
        return {k: next(iter(difflib.get_close_matches(k.upper(), known, 1, 0.75)), "") for k in unknown}

    def effective(self) -> dict[str, Any]:
        """All values as they are in force, for the log, with secrets and credentials in URLs hidden."""
        shown = self.model_dump(mode="json")
        return {k: without_credentials(v) if isinstance(v, str) else v for k, v in shown.items()}


class ProcessSettings(Settings):
    """What every process of the cluster can be told."""

    host: str = "127.0.0.1"
    """The address to listen on. Other than loopback it wants certificates, or `allow_plaintext`."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    metrics_host: str = ""
    """The address on which Prometheus may scrape; empty: `host`."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of the metrics; absent: `port` + 1000."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """With TLS on: the port that answers health checks alone, in plaintext; absent: `port` + 2000."""
    tls_cert: str = ""
    """The file of this process's certificate chain (PEM). Read again when it changes. Empty: no TLS."""
    tls_key: str = ""
    """The file of this process's private key (PEM)."""
    tls_ca: str = ""
    """The file of the authority (PEM) that peers' certificates must come from. On a server: clients must show one."""
    allow_plaintext: bool = False
    """Allows an address other than loopback without TLS."""
    log_level: str = Field(default="INFO", pattern="^(?i:debug|info|warning|error|critical)$")
    """What is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    record_prompts: bool = False
    """Lets traces hold prompts. They are personal data: off by default."""
    otlp_endpoint: str = Field(default="", pattern="^(https?://[^/]+/?)?$")
    """Where spans are sent (OTLP over gRPC), as http://host:4317 or https://host:4317. Empty: nowhere."""
    otlp_metrics: bool = False
    """Sends metrics to `otlp_endpoint` too, beside the scrape endpoint."""
    trace_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of requests whose traces are kept. Failed requests are always kept."""
    drain_seconds: float = Field(default=310.0, ge=0)
    """After SIGTERM: how long running work may take to finish. At least the longest deadline."""
    max_message_bytes: int = Field(default=64 * 2**20, ge=1024, le=MAX_INT32)
    """The largest message taken from a caller."""
    receive_seconds: float = Field(default=30.0, gt=0)
    """How long a request's message may take to arrive after its call has begun."""
    send_seconds: float = Field(default=5.0, gt=0)
    """How long a caller may leave a message of its answer unread, beside the time that the message takes at 128 KiB a
    second; then its call is ended, and work that nobody else waits for is cancelled."""
    max_metadata_bytes: int = Field(default=16 * 2**10, ge=1024, le=MAX_INT32)
    """The most header bytes of a call."""
    max_concurrent_calls: int = Field(default=2000, ge=1, le=1_000_000)
    """The most calls at the same time over all connections, health checks not counted; one more is refused."""
    max_concurrent_streams: int = Field(default=1000, ge=1, le=MAX_INT32)
    """The most calls at the same time on one connection. gRPC may reset what exceeds it, so that callers hear
    UNAVAILABLE: a gateway's should be several times its `max_ongoing_requests`, which tells them more."""
    connection_age_seconds: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """A connection is asked to go after this time, so that callers come to know new replicas."""
    connection_age_grace_seconds: float = Field(default=310.0, gt=0, le=MAX_SECONDS)
    """How long a connection that was asked to go may still finish its calls. At least the longest deadline."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("HART_TLS_CERT and HART_TLS_KEY must be given together")
        if self.tls_ca and not self.tls:
            raise ValueError(
                "HART_TLS_CA is given without HART_TLS_CERT and HART_TLS_KEY: nobody would be asked for a certificate"
            )
        if not self.tls and not self.allow_plaintext and not is_loopback(self.host):
            raise ValueError(
                f"HART_HOST={self.host!r} is not loopback: give HART_TLS_CERT and HART_TLS_KEY, or choose plaintext "
                "with HART_ALLOW_PLAINTEXT=true"
            )
        return self

    @property
    def tls(self) -> bool:
        """True when this process serves over TLS."""
        return bool(self.tls_cert)


class StageSettings(ProcessSettings):
    """What every stage with a model can be told."""

    max_message_bytes: int = Field(default=16 * 2**20, ge=1024, le=MAX_INT32)
    """The largest message taken. A full-size latent takes 0.5 MiB, a prompt's conditioning less than 4."""
    checkpoint: str = ""
    """The folder of the checkpoint. Empty: the bundled one."""
    device: str = "cpu"
    """Where the model computes: cpu, cuda, cuda:1, …"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The precision of weights and activations."""
    torch_threads: int = Field(default=0, ge=0)
    """On a CPU: the threads of one operation; 0: as many as torch chooses."""
    queue_limit: int = Field(default=64, ge=1)
    """Requests that may wait; one more is refused at once."""
    max_batch: int = Field(default=8, ge=1)
    """The most requests that run together; also the most items of one request by the Open Inference Protocol."""


class BatchingSettings(StageSettings):
    """What a stage that gathers requests into batches can be told; the generator gathers scales instead."""

    batch_wait_timeout_seconds: float = Field(default=0.0, ge=0, le=1)
    """How long a batch that is not full waits for company, while the engine is free."""


@contextmanager
def as_settings_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turns errors of these kinds, whose message says what is wrong with what, into a SettingsError of one line."""
    try:
        yield
    except kinds as error:
        raise SettingsError(" ".join(str(error).split())) from error


def without_credentials(text: str) -> str:
    """The text with *** for the user and password of each URL in it."""
    return _CREDENTIALS.sub("***@", text)


def is_loopback(host: str) -> bool:
    """True for names and addresses which only this machine reaches."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, whoever it may belong to
        return False


def _variable(field: str) -> str:
    return PREFIX + field.upper()


__all__ = [
    "BatchingSettings",
    "ProcessSettings",
    "SecretStr",
    "Settings",
    "SettingsError",
    "StageSettings",
    "as_settings_error",
    "is_loopback",
    "without_credentials",
]
