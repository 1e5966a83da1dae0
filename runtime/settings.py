"""Settings that every process shares. Each process reads them from the environment once and passes them on."""

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
# Kubernetes sets these variables in every container when a Service's name begins with "hart".
_SERVICE_LINK = re.compile(r"(_SERVICE_(HOST|PORT)(_.*)?|_PORT_\d+_(TCP|UDP)(_.*)?)$")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
MAX_INT32 = 2**31 - 1  # gRPC options are 32-bit integers
MAX_SECONDS = MAX_INT32 // 1000  # seconds; gRPC counts milliseconds


class SettingsError(Exception):
    """One or more variables have an invalid value. The message names each variable and its value."""


class Settings(BaseSettings):
    """Base of all settings. Each field is read from `HART_<FIELD>` and documented by the sentence under it. Frozen."""

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
        """Strips blanks and line ends (from environment files) and byte-order marks (from editors).

        A value of these alone stays as it is: it was given, it is not absent.
        """
        return (value.strip(" \t\r\n\ufeff") or value) if isinstance(value, str) else value

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment; `values` override it. Raises SettingsError, which names the variable and its value."""
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
        """Convert errors of these kinds into a SettingsError that names this field's variable and value."""
        try:
            with as_settings_error(*kinds):
                yield
        except SettingsError as error:
            reason = str(error).removeprefix(f"{field}: ")
            raise SettingsError(f"{_variable(field)}={getattr(self, field)!r}: {reason}") from error

    @classmethod
    def help_text(cls) -> str:
        """The help text: each variable with its default and its sentence."""
        lines = [inspect.getdoc(cls) or ""]
        for name, field in cls.model_fields.items():
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            lines.append(f"\n{_variable(name)}{' (absent)' if default is None else f'={default}'}")
            lines += textwrap.wrap(field.description or "", 110, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    @classmethod
    def unknown(cls) -> dict[str, str]:
        """Variables that begin with HART_ and are not settings of this process. Maps each name to the nearest valid
        name, or to ""."""
        known = {_variable(name) for name in cls.model_fields}
        unknown = [k for k in os.environ if k.upper().startswith(PREFIX) and k.upper() not in known]
        unknown = [k for k in unknown if not _SERVICE_LINK.search(k.upper())]
        return {k: next(iter(difflib.get_close_matches(k.upper(), known, 1, 0.75)), "") for k in unknown}

    def effective(self) -> dict[str, Any]:
        """All effective values, for the log. Secrets and credentials in URLs are replaced by ***."""
        shown = self.model_dump(mode="json")
        return {k: without_credentials(v) if isinstance(v, str) else v for k, v in shown.items()}


class ProcessSettings(Settings):
    """Settings of every process of the cluster."""

    host: str = "127.0.0.1"
    """The address to listen on. An address other than loopback requires certificates or `allow_plaintext`."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port of the gRPC server. 0: the system chooses a free port."""
    metrics_host: str = ""
    """The address of the metrics endpoint. Empty: `host`."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of the metrics endpoint. Absent: `port` + 1000."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """With TLS: a plaintext port that serves only health checks. Absent: `port` + 2000."""
    tls_cert: str = ""
    """This process's certificate chain (PEM file). Reloaded when it changes. Empty: no TLS."""
    tls_key: str = ""
    """This process's private key (PEM file)."""
    tls_ca: str = ""
    """The certificate authority that must have issued peers' certificates (PEM file). Servers then require client
    certificates."""
    allow_plaintext: bool = False
    """Allows plaintext on an address other than loopback."""
    log_level: str = Field(default="INFO", pattern="^(?i:debug|info|warning|error|critical)$")
    """The minimum log level: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    record_prompts: bool = False
    """Records prompts in traces. Prompts are personal data, so this is off by default."""
    otlp_endpoint: str = Field(default="", pattern="^(https?://[^/]+/?)?$")
    """The OTLP collector for spans (gRPC), as http://host:4317 or https://host:4317. Empty: no export."""
    otlp_metrics: bool = False
    """Also exports metrics to `otlp_endpoint`. The scrape endpoint stays on."""
    otlp_logs: bool = False
    """Also exports log records to `otlp_endpoint`, with trace and span ids. Standard error stays on."""
    trace_ratio: float = Field(default=1.0, ge=0, le=1)
    """The fraction of requests whose traces are exported. Traces of failed requests are always exported."""
    drain_seconds: float = Field(default=310.0, ge=0)
    """Max time for running work to finish after SIGTERM. Set it to at least the max deadline."""
    max_message_bytes: int = Field(default=64 * 2**20, ge=1024, le=MAX_INT32)
    """Max size of a received message."""
    receive_seconds: float = Field(default=30.0, gt=0)
    """Max time for a request's message to arrive after the start of the call."""
    send_seconds: float = Field(default=5.0, gt=0)
    """Max time for a client to read a response message, plus the transfer time at 128 KiB per second. After it the call
    is cancelled. Its work is cancelled too if no other call waits for it."""
    max_metadata_bytes: int = Field(default=16 * 2**10, ge=1024, le=MAX_INT32)
    """Max size of a call's metadata."""
    max_concurrent_calls: int = Field(default=2000, ge=1, le=1_000_000)
    """Max concurrent calls over all connections, without health checks. Calls above it are refused."""
    max_concurrent_streams: int = Field(default=1000, ge=1, le=MAX_INT32)
    """Max concurrent calls on one connection. gRPC may reset streams above it (UNAVAILABLE). On a gateway, set it to
    several times `max_ongoing_requests`, whose refusals carry details."""
    connection_age_seconds: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """Max age of a connection. After it the server closes the connection gracefully, so that clients reconnect and find
    new replicas."""
    connection_age_grace_seconds: float = Field(default=310.0, gt=0, le=MAX_SECONDS)
    """Max time for a connection's calls to finish after its max age. Set it to at least the max deadline."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("HART_TLS_CERT and HART_TLS_KEY must be set together")
        if self.tls_ca and not self.tls:
            raise ValueError(
                "HART_TLS_CA requires HART_TLS_CERT and HART_TLS_KEY: without TLS no client certificate is checked"
            )
        if not self.tls and not self.allow_plaintext and not is_loopback(self.host):
            raise ValueError(
                f"HART_HOST={self.host!r} is not loopback: set HART_TLS_CERT and HART_TLS_KEY, or allow plaintext with "
                "HART_ALLOW_PLAINTEXT=true"
            )
        return self

    @property
    def tls(self) -> bool:
        """True if this process serves over TLS."""
        return bool(self.tls_cert)


class StageSettings(ProcessSettings):
    """Settings of every stage with a model."""

    max_message_bytes: int = Field(default=16 * 2**20, ge=1024, le=MAX_INT32)
    """Max size of a received message. A full-size latent takes 0.5 MiB, a prompt's conditioning less than 4 MiB."""
    checkpoint: str = ""
    """The checkpoint's folder. Empty: the bundled checkpoint."""
    device: str = "auto"
    """The model's device: cpu, cuda, cuda:1, …; auto: a GPU where there is one, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The precision of weights and activations; auto: bfloat16 on a GPU, float32 on a CPU."""
    torch_threads: int = Field(default=0, ge=0)
    """Intra-op threads on a CPU. 0: one per core, at most the CPUs of the process's affinity and cgroup quota."""
    max_queued_requests: int = Field(default=64, ge=1)
    """Max requests in the queue. Requests above it are refused at once."""
    max_batch: int = Field(default=8, ge=1)
    """Max requests in a batch. Also the max batch dimension of an Open Inference Protocol request."""


class BatchingSettings(StageSettings):
    """Settings of a stage that batches requests. The generator batches scales instead."""

    batch_wait_timeout_seconds: float = Field(default=0.0, ge=0, le=1)
    """Max time that a batch waits to be filled while the engine is idle."""


@contextmanager
def as_settings_error(*kinds: type[Exception]) -> Iterator[None]:
    """Convert errors of these kinds into a SettingsError with a one-line message."""
    try:
        yield
    except kinds as error:
        raise SettingsError(" ".join(str(error).split())) from error


def without_credentials(text: str) -> str:
    """The text with *** in place of the user and password of each URL."""
    return _CREDENTIALS.sub("***@", text)


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine can reach."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a host name: it may resolve to any address
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
