"""Which engine computes the generator's and the decoder's networks: torch, or ONNX Runtime on a CPU."""

from importlib.util import find_spec

import torch

from model.device import AUTO, Compute
from model.errors import SettingError
from model.generation import Generator
from model.tokenizer import HybridTokenizer

TORCH, ONNX = "torch", "onnx"
ENGINES = (AUTO, TORCH, ONNX)
PACKAGES = ("onnx", "onnxruntime")


def choose(engine: str, compute: Compute) -> str:
    """The engine by name: "auto" is ONNX Runtime where it is installed and the model is in float32 on a CPU.

    Raises SettingError for an unknown engine, and for one that cannot run here.
    """
    if engine not in ENGINES:
        raise SettingError("engine", f"{engine!r}: expected one of {', '.join(ENGINES)}")
    obstacle = _obstacle(compute)
    if engine == AUTO:
        # Not by a race at warm-up: replicas of a stage would choose differently, and their bits differ.
        return TORCH if obstacle else ONNX
    if engine == ONNX and obstacle:
        raise SettingError("engine", f"{ONNX!r} cannot be used: {obstacle}")
    return engine


def _obstacle(compute: Compute) -> str:
    """Why ONNX Runtime cannot compute; empty if it can."""
    if compute.device.type != "cpu" or compute.dtype != torch.float32:
        return f"it computes in float32 on a CPU, and this is {compute.precision} on {compute.device.type}"
    missing = [name for name in PACKAGES if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def speed_up_generator(generator: Generator, engine: str, compute: Compute) -> None:
    """Lets a generator advance by a chosen engine. `compute` owns the calling thread."""
    if engine == ONNX:
        from model.onnx_engine.generator import OnnxGenerator  # a late import: the packages may be absent

        generator.lanes = OnnxGenerator(generator, compute.threads or torch.get_num_threads())


def speed_up_decoder(tokenizer: HybridTokenizer, engine: str, compute: Compute) -> None:
    """Lets a tokenizer decode by a chosen engine. `compute` owns the calling thread."""
    if engine == ONNX:
        from model.onnx_engine.decoder import OnnxDecoder  # a late import for the same reason

        tokenizer.engine = OnnxDecoder(tokenizer, compute.threads or torch.get_num_threads())
