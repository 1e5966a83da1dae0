"""Every file of the decoder is marked as made by AI, unless the operator's setting turns it off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hart.v1 import decoder_pb2, decoder_pb2_grpc

from common import provenance
from runtime import tensors
from services.decoder.assembly import build
from services.decoder.config import DecoderSettings
from tests.services.support import serving

pytestmark = pytest.mark.asyncio(loop_scope="session")
FORMATS = (decoder_pb2.IMAGE_FORMAT_PNG, decoder_pb2.IMAGE_FORMAT_JPEG, decoder_pb2.IMAGE_FORMAT_WEBP)


async def files(decoder: Any) -> list[bytes]:
    """A file in each format, without a recipe, and a preview."""
    stub = decoder_pb2_grpc.DecoderStub(decoder.channel)
    latent = tensors.from_numpy(np.zeros((8, 4, 4), np.float32))
    found = []
    for format in FORMATS:
        encoding = decoder_pb2.ImageEncoding(format=format)
        for side in (None, 8):
            answer = await stub.Decode(decoder_pb2.DecodeRequest(latent=latent, encoding=encoding, side=side))
            found.append(answer.image)
    return found


async def test_every_file_is_marked_previews_and_files_without_a_recipe_too(stages: Any) -> None:
    assert all(provenance.is_marked(one) for one in await files(stages.decoder))


async def test_only_the_operators_setting_turns_it_off(tiny_checkpoint: Path) -> None:
    settings = DecoderSettings(port=0, checkpoint=str(tiny_checkpoint), mark_ai_generated=False)
    async with serving("decoder", build, settings) as decoder:
        assert not any(provenance.is_marked(one) for one in await files(decoder))
