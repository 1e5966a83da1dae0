"""The four stage calls to one replica, independent of the protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from hart.v1 import ar_generator_pb2, decoder_pb2, safety_pb2, text_encoder_pb2

from runtime.calls.replica import Replica
from runtime.deadline import Deadline
from runtime.observability.tracing import Metadata


class StageBackend(Protocol):
    """Implemented by `grpc_v1` and `oip.OipBackend`. All calls raise HartError."""

    async def check(
        self, replica: Replica, message: safety_pb2.CheckRequest, deadline: Deadline, metadata: Metadata
    ) -> safety_pb2.CheckResponse:
        """The verdict on a prompt."""

    async def encode(
        self, replica: Replica, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, metadata: Metadata
    ) -> text_encoder_pb2.EncodeResponse:
        """A prompt's conditioning."""

    def generate(
        self,
        replica: Replica,
        message: ar_generator_pb2.GenerateLatentRequest,
        deadline: Deadline,
        metadata: Metadata,
    ) -> AsyncGenerator[ar_generator_pb2.GenerateLatentEvent, None]:
        """Progress per scale, then the latent. Closing the generator cancels the call."""

    async def decode(
        self, replica: Replica, message: decoder_pb2.DecodeRequest, deadline: Deadline, metadata: Metadata
    ) -> decoder_pb2.DecodeResponse:
        """The image of a latent."""
