"""services.*.engine: half precision inside, and the wire's dtypes outside."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from model.params import SamplingParams
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import GenerationRequest, GeneratorEngine
from services.decoder.config import DecoderSettings
from services.decoder.engine import DecoderEngine, Job
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import Encoded, TextEncoderEngine

Dtype = Literal["bfloat16", "float16"]
HALVES = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


@HALVES
def test_prompt_becomes_an_image_in_half_precision(folder: str, dtype: Dtype) -> None:
    text = TextEncoderEngine(TextEncoderSettings(checkpoint=folder, dtype=dtype))
    text.load()
    (encoded,) = text.run(["a red heart"])
    assert isinstance(encoded, Encoded)
    assert encoded.context.dtype == (np.float16 if dtype == "float16" else np.float32)
    generator = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, dtype=dtype))
    generator.load()
    request = GenerationRequest(encoded.context, encoded.mask, encoded.positions, 7, SamplingParams())
    state = generator.begin(request)
    while state.scale < generator.scales:
        (latent,) = generator.advance([(state, request)]).latents
    assert isinstance(latent, np.ndarray)
    assert latent.dtype == np.float32
    decoder = DecoderEngine(DecoderSettings(checkpoint=folder, dtype=dtype))
    decoder.load()
    (pixels,) = decoder.run([Job(latent, decoder.side)])
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (8, 8, 3)
