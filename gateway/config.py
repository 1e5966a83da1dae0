"""The gateway's settings: names, defaults, bounds."""

from __future__ import annotations

import os
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from common.stages import AR_GENERATOR, DECODER, GATEWAY_PORT, SAFETY, STAGES, TEXT_ENCODER
from runtime.discovery.sources import source
from runtime.settings import MAX_INT32, ProcessSettings, SecretStr, is_loopback, without_credentials


def _source(text: str) -> str:
    source(text)  # raises ValueError with the text
    return text


def _stages(text: str) -> str:
    unknown = [name for name in text.split(",") if name and name not in STAGES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: there are {', '.join(STAGES)}")
    return text


def _peers(text: str) -> str:
    return _source(text) if text else text


Where = Annotated[str, AfterValidator(_source), Field(min_length=1)]


class GatewaySettings(ProcessSettings):
    """The gateway's settings.

    Where a stage is: a list of `host:port`, `unix:/path` and `oip://host:port/model` with commas between; or
    `file:///path` (one of these per line, re-read on change), `dns:///host:port` (every address behind the name),
    `kubernetes://namespace/service:port` (the Service's EndpointSlices, watched); the last two with `?oip=model` for
    servers of that protocol.
    """

    port: int = Field(default=GATEWAY_PORT, ge=0, le=65535)
    """Port of the gRPC server. 0: the system chooses."""
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the HTTP API (OpenAI images), on `host` and with the certificates of the gRPC server. 0: the system
    chooses. Absent: no HTTP API."""
    scaler_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of KEDA's external scaler, on `host` and with the certificates of the gRPC server. It requires no API key:
    let only KEDA and the other gateways reach it. 0: the system chooses. Absent: no external scaler."""
    scaler_peers: Annotated[str, AfterValidator(_peers)] = ""
    """Endpoints of the scaler ports of all gateways, this one's included, in the form of a stage's. The scaler counts
    the requests of all of them. Empty: this gateway is the only one."""
    safety: Where = f"127.0.0.1:{SAFETY.port}"
    """Endpoints of the safety stage."""
    text_encoder: Where = f"127.0.0.1:{TEXT_ENCODER.port}"
    """Endpoints of the text encoder."""
    ar_generator: Where = f"127.0.0.1:{AR_GENERATOR.port}"
    """Endpoints of the generator."""
    decoder: Where = f"127.0.0.1:{DECODER.port}"
    """Endpoints of the decoder."""
    stage_tls_ca: str = ""
    """Certificate authority (PEM file) of the stages' certificates. Empty: `tls_ca`. Both empty: plaintext to the
    stages."""
    stage_tls_cert: str = ""
    """Client certificate (PEM file) for the stages. Empty: `tls_cert`."""
    stage_tls_key: str = ""
    """Key (PEM file) of that certificate. Empty: `tls_key`."""

    max_message_bytes: int = Field(default=64 * 2**10, ge=16 * 2**10, le=MAX_INT32)
    """Maximum size of a request. A prompt of 2,000 code points has at most 8 KB."""
    default_deadline_seconds: float = Field(default=60.0, gt=0)
    """Deadline of a request without one, in seconds. With `scale_to_zero_stages`: `max_deadline_seconds`."""
    max_deadline_seconds: float = Field(default=300.0, gt=0)
    """Maximum deadline of a request, in seconds."""
    deadline_margin_seconds: float = Field(default=0.02, ge=0)
    """Seconds of a request's deadline that stages do not get: time to send the response."""
    keepalive_seconds: float = Field(default=75.0, gt=0)
    """HTTP API: seconds until an idle connection is closed. Longer than a load balancer's own idle time, which is often
    60 s."""
    max_ongoing_requests: int = Field(default=256, ge=1)
    """Maximum of ongoing requests. One more is refused."""
    max_labelled_callers: int = Field(default=100, ge=0, le=10_000)
    """Maximum of callers with a label of their own in metrics. Later ones share the label "other"."""
    max_held_requests: int = Field(default=100, ge=0)
    """Maximum of requests that wait for the first replica of a stage that scales to zero. One more is refused."""
    connection_requests: int | None = Field(default=None, ge=1)
    """Maximum of ongoing requests per connection, for anonymous callers. Absent: three quarters of
    `max_ongoing_requests`."""
    peer_requests: int | None = Field(default=None, ge=1)
    """Maximum of ongoing requests per address (IPv6: per /64 network), for anonymous callers. Absent: seven eighths of
    `max_ongoing_requests`."""
    max_response_buffer_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """Maximum bytes of buffered responses, unread ones included. Above it new requests are refused."""
    max_pending_decodes: int = Field(default=32, ge=1)
    """Maximum of latents that wait for the decoder. Images in progress: at most these plus the generators' slots."""

    retry_attempts: int = Field(default=6, ge=1, le=20)
    """Maximum attempts of one call to a stage, the first included."""
    retry_ratio: float = Field(default=0.2, ge=0, le=1)
    """Retry budget: retries that a successful call adds for its stage."""
    retry_per_second: float = Field(default=2.0, ge=0)
    """Retry budget: retries added per second, for a cluster with little traffic."""
    retry_burst: float = Field(default=20.0, ge=0)
    """Retry budget: maximum and initial number of retries of a stage."""

    mark_ai_generated: bool = True
    """Marks image files of a decoder behind `oip://` as made by AI, where it has not: IPTC digital source type
    trainedAlgorithmicMedia, in XMP. Our own decoder has a setting of this name."""

    idempotency_ttl_seconds: float = Field(default=600.0, ge=0)
    """How long a response is kept for repeated requests with its request id, in seconds."""
    idempotency_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Maximum bytes of kept responses. The oldest is evicted first."""

    api_keys: SecretStr = SecretStr("")
    """API keys as a comma-separated list of `name=key`. Without API keys and JWT settings every caller is admitted."""
    api_keys_file: str = ""
    """A file with more API keys, one `name=key` per line. Re-read when it changes."""
    jwt_jwks_url: str = ""
    """URL of the issuer's keys (JWKS), https:// (http:// on loopback). Empty: no JWTs."""
    jwt_issuer: str = ""
    """Required issuer of a JWT."""
    jwt_audience: str = ""
    """Required audience of a JWT. Empty: not checked."""
    jwt_scope: str = ""
    """Required scope of a JWT. Empty: none."""
    caller_requests_per_second: float = Field(default=0.0, ge=0)
    """Average requests per second of one caller. 0: no limit."""
    caller_burst: int = Field(default=10, ge=1)
    """Requests that an idle caller may send at once."""
    caller_concurrency: int = Field(default=0, ge=0)
    """Maximum of ongoing requests of one caller. 0: no limit."""

    describe_interval_seconds: float = Field(default=2.0, gt=0)
    """Seconds between two polls of the stages' descriptions."""
    scaler_target_load: float = Field(default=0.8, gt=0)
    """Target `hart_load` per replica of the external scaler."""
    scaler_cooldown_seconds: float = Field(default=30.0, ge=0)
    """Seconds after the last request during which the external scaler reports a stage as active."""

    scale_to_zero_stages: Annotated[str, AfterValidator(_stages)] = ""
    """Comma-separated stages that may have no replica while idle. Without requests they raise no alert."""

    @model_validator(mode="after")
    def _gateway_consistent(self) -> Self:
        if self.default_deadline_seconds > self.max_deadline_seconds:
            raise ValueError(
                f"HART_DEFAULT_DEADLINE_SECONDS={self.default_deadline_seconds:g} must not be over "
                f"HART_MAX_DEADLINE_SECONDS={self.max_deadline_seconds:g}"
            )
        if self.deadline_margin_seconds >= self.default_deadline_seconds:
            raise ValueError(
                f"HART_DEADLINE_MARGIN_SECONDS={self.deadline_margin_seconds:g} must be under "
                f"HART_DEFAULT_DEADLINE_SECONDS={self.default_deadline_seconds:g}"
            )
        for name in ("jwt_issuer", "jwt_audience", "jwt_scope"):
            if getattr(self, name) and not self.jwt_jwks_url:
                raise ValueError(f"HART_{name.upper()} requires HART_JWT_JWKS_URL")
        if self.jwt_jwks_url:
            url = urlsplit(self.jwt_jwks_url)
            if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
                shown = without_credentials(self.jwt_jwks_url)
                raise ValueError(f"HART_JWT_JWKS_URL={shown!r} must be https:// (http:// on loopback only)")
            if not self.jwt_issuer:
                raise ValueError("HART_JWT_ISSUER must be given with HART_JWT_JWKS_URL")
        if self.api_keys_file and not os.path.exists(self.api_keys_file):
            raise ValueError(f"HART_API_KEYS_FILE={self.api_keys_file!r} does not exist")
        return self

    @model_validator(mode="after")
    def _ends_after_the_longest_deadline(self) -> Self:
        for name in ("drain_seconds", "connection_age_grace_seconds"):
            if getattr(self, name) < self.max_deadline_seconds:
                raise ValueError(
                    f"HART_{name.upper()}={getattr(self, name):g} must not be under "
                    f"HART_MAX_DEADLINE_SECONDS={self.max_deadline_seconds:g}"
                )
        return self

    @model_validator(mode="after")
    def _peers_need_a_scaler(self) -> Self:
        if self.scaler_peers and self.scaler_port is None:
            raise ValueError(f"HART_SCALER_PEERS={self.scaler_peers!r} requires HART_SCALER_PORT")
        if self.scaler_peers and self.tls and not (self.stage_tls_ca or self.tls_ca):
            raise ValueError(
                f"HART_SCALER_PEERS={self.scaler_peers!r} requires HART_STAGE_TLS_CA with HART_TLS_CERT: the "
                "scaler ports of the other gateways have TLS"
            )
        return self

    @model_validator(mode="after")
    def _stages_certificate_whole(self) -> Self:
        if bool(self.stage_tls_cert) != bool(self.stage_tls_key):
            raise ValueError("HART_STAGE_TLS_CERT and HART_STAGE_TLS_KEY must be given together")
        if self.stage_tls_cert and not (self.stage_tls_ca or self.tls_ca):
            raise ValueError(
                "HART_STAGE_TLS_CERT requires HART_STAGE_TLS_CA: without it stages are called in plaintext"
            )
        return self

    @property
    def absent_deadline_seconds(self) -> float:
        """Deadline of a request without one. The maximum where a stage may have to start first."""
        return self.max_deadline_seconds if self.scale_to_zero_stages else self.default_deadline_seconds

    def min_replicas(self, stage: str) -> int:
        """Minimum replicas of a stage."""
        return 0 if stage in self.scale_to_zero_stages.split(",") else 1

    def where(self, stage: str) -> str:
        """Endpoints of a stage."""
        return str(getattr(self, stage))
