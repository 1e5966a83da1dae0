"""Puts a loaded model's heavy parts on ONNX Runtime."""

import torch
from torch import Tensor

from model.generation import Generator
from model.onnx_engine.decoder import decoder_graph
from model.onnx_engine.generator import OnnxGenerator
from model.onnx_engine.session import Session
from model.tokenizer import HybridTokenizer


def attach_generator(generator: Generator, threads: int) -> None:
    """Lets a generator in float32 on a CPU advance on ONNX Runtime."""
    generator.lanes = OnnxGenerator(generator, threads)


def attach_decoder(tokenizer: HybridTokenizer, threads: int) -> None:
    """Lets a tokenizer in float32 on a CPU decode on ONNX Runtime."""
    session = Session(decoder_graph(tokenizer), threads)

    def decode(latent: Tensor) -> Tensor:
        return torch.from_numpy(session(latent=latent.numpy())["image"])

    tokenizer.engine = decode
