"""The stages of the cluster and the ports of its processes.

Images of containers, the chart and the cluster on one machine all follow this table; tests compare those that cannot
import it.
"""

from __future__ import annotations

from dataclasses import dataclass

GATEWAY_SERVICE = "hart.v1.Images"
GATEWAY_PORT = 50051
METRICS_PORT_OFFSET = 1000
"""From a process's gRPC port to the one of its metrics."""
HEALTH_PORT_OFFSET = 2000
"""With TLS: from a process's gRPC port to the one that answers health checks alone, in plaintext."""
HTTP_PORT_OFFSET = 3000
"""From the gateway's gRPC port to the one of its HTTP API, where it is served."""
SCALER_PORT_OFFSET = 4000
"""From the gateway's gRPC port to the one of its external scaler, where it is served."""
START_SECONDS = 240.0
"""How long a process may take until it is ready: two imports of torch on a busy machine take most of it."""


@dataclass(frozen=True)
class Stage:
    """One of the four stages."""

    name: str
    """Of its package in `services`, of its setting HART_<NAME> and of its model by the Open Inference Protocol."""
    service: str
    """Full name of its gRPC service."""
    port_offset: int
    """From the gateway's port to its own."""
    part: str
    """The folder of a checkpoint that it computes with."""

    @property
    def port(self) -> int:
        """Beside a gateway on GATEWAY_PORT."""
        return GATEWAY_PORT + self.port_offset


SAFETY = Stage("safety", "hart.v1.Safety", 1, "safety")
TEXT_ENCODER = Stage("text_encoder", "hart.v1.TextEncoder", 2, "text_encoder")
AR_GENERATOR = Stage("ar_generator", "hart.v1.ArGenerator", 3, "llm")
DECODER = Stage("decoder", "hart.v1.Decoder", 4, "tokenizer")

STAGES = {stage.name: stage for stage in (SAFETY, TEXT_ENCODER, AR_GENERATOR, DECODER)}
"""By name, in the order of a request's way."""
