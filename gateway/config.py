"""What an operator can tell the gateway. Knows names and bounds, nothing of what is done with them."""

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


Where = Annotated[str, AfterValidator(_source), Field(min_length=1)]


class GatewaySettings(ProcessSettings):
    """The front door's settings.

    Where a stage is: a list of `host:port`, `unix:/path` and `oip://host:port/model` with commas between; or
    `file:///path` (one of those a line, followed), `dns:///host:port` (every address behind the name),
    `kubernetes://namespace/service:port` (the Service's EndpointSlices, watched); the last two with `?oip=model` for
    servers of that protocol.
    """

    port: int = Field(default=GATEWAY_PORT, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    safety: Where = f"127.0.0.1:{SAFETY.port}"
    """Where the safety stage is."""
    text_encoder: Where = f"127.0.0.1:{TEXT_ENCODER.port}"
    """Where the text encoder is."""
    ar_generator: Where = f"127.0.0.1:{AR_GENERATOR.port}"
    """Where the generator is."""
    decoder: Where = f"127.0.0.1:{DECODER.port}"
    """Where the decoder is."""
    stage_tls_ca: str = ""
    """The authority (PEM file) that stages' certificates must come from. Empty: `tls_ca`; neither: stages are called in
    plaintext."""
    stage_tls_cert: str = ""
    """The certificate (PEM file) shown to stages. Empty: `tls_cert`."""
    stage_tls_key: str = ""
    """The key (PEM file) of that certificate. Empty: `tls_key`."""

    max_message_bytes: int = Field(default=64 * 2**10, ge=16 * 2**10, le=MAX_INT32)
    """The largest request taken. A prompt of 2,000 code points takes 8 KB at most."""
    default_deadline_seconds: float = Field(default=60.0, gt=0)
    """The time of a request whose caller gives none."""
    max_deadline_seconds: float = Field(default=300.0, gt=0)
    """The longest time that any request has."""
    deadline_margin_seconds: float = Field(default=0.02, ge=0)
    """Kept back from what stages are given of a request's time, so that the answer can still be sent."""
    max_ongoing_requests: int = Field(default=256, ge=1)
    """Requests in work at the same time; one more is refused."""
    connection_requests: int | None = Field(default=None, ge=1)
    """Requests that one connection may have in work, of callers without a key or JWT; absent: three quarters of
    `max_ongoing_requests`."""
    peer_requests: int | None = Field(default=None, ge=1)
    """Requests that one address (of IPv6 one /64 network) may have in work, of callers without a key or JWT; absent:
    seven eighths of `max_ongoing_requests`."""
    max_response_buffer_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """What answers under way may hold in memory, callers that do not read theirs included; beyond, none is begun."""
    max_pending_decodes: int = Field(default=32, ge=1)
    """Latents that may wait for the decoder. No more pictures are begun and not finished than these and what the
    generators draw at the same time."""

    retry_attempts: int = Field(default=6, ge=1, le=20)
    """The most attempts of one call to a stage, the first included."""
    retry_ratio: float = Field(default=0.2, ge=0, le=1)
    """Retries that a successful call earns for its stage: the retry budget."""
    retry_per_second: float = Field(default=2.0, ge=0)
    """Retries that every second adds, however few calls succeed: what a cluster with little traffic lives on."""
    retry_burst: float = Field(default=20.0, ge=0)
    """Retries that a stage's budget holds at most, and at the start."""

    idempotency_ttl_seconds: float = Field(default=600.0, ge=0)
    """How long an answer is kept for a repeat of its request id."""
    idempotency_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """The most bytes of answers that are kept; the oldest goes first."""

    api_keys: SecretStr = SecretStr("")
    """Callers' keys as a comma-separated list of `name=key`. Where neither keys nor JWT are set, everybody may call."""
    api_keys_file: str = ""
    """A file with further keys, one `name=key` a line; read again when it changes."""
    jwt_jwks_url: str = ""
    """Where the issuer's keys (JWKS) are, https:// (http:// on loopback). Empty: JWTs are not taken."""
    jwt_issuer: str = ""
    """The issuer that a JWT must name."""
    jwt_audience: str = ""
    """The audience that a JWT must be for; empty: it is not looked at."""
    jwt_scope: str = ""
    """The scope that a JWT must have; empty: none."""
    caller_requests_per_second: float = Field(default=0.0, ge=0)
    """Requests that one caller may send per second in the long run; 0: no limit."""
    caller_burst: int = Field(default=10, ge=1)
    """Requests that a caller who was quiet may send at once."""
    caller_concurrency: int = Field(default=0, ge=0)
    """Requests that one caller may have in work at the same time; 0: no limit."""

    describe_interval_seconds: float = Field(default=2.0, gt=0)
    """How often stages are asked for their limits and load."""
    scaler_target_load: float = Field(default=0.8, gt=0)
    """The `hart_load` per replica that the external scaler asks KEDA to keep to."""
    scaler_cooldown_seconds: float = Field(default=30.0, ge=0)
    """How long after the last request the external scaler still calls a stage active."""

    scale_to_zero_stages: Annotated[str, AfterValidator(_stages)] = ""
    """Stages, with commas between, that may rest without a replica while nobody asks: no alert for them then."""

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
                raise ValueError(f"HART_{name.upper()} is given without HART_JWT_JWKS_URL: no token would be looked at")
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
    def _stages_certificate_whole(self) -> Self:
        if bool(self.stage_tls_cert) != bool(self.stage_tls_key):
            raise ValueError("HART_STAGE_TLS_CERT and HART_STAGE_TLS_KEY must be given together")
        if self.stage_tls_cert and not (self.stage_tls_ca or self.tls_ca):
            raise ValueError(
                "HART_STAGE_TLS_CERT is given without HART_STAGE_TLS_CA: stages would be called in plaintext"
            )
        return self

    def min_replicas(self, stage: str) -> int:
        """The fewest replicas that a stage is meant to have."""
        return 0 if stage in self.scale_to_zero_stages.split(",") else 1

    def where(self, stage: str) -> str:
        """Where a stage is."""
        return str(getattr(self, stage))
