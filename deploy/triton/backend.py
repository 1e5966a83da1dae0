"""Shared by the models inside Triton's Python stub: reads prompts from requests and builds responses.

The stub was built for numpy 1, so the launcher puts numpy 1 before the environment's numpy. Under numpy 2 the stub
silently corrupts arrays: its inputs repeat their first byte, and its outputs are empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint, bundled
from runtime import prompt
from runtime.errors import InvalidRequest

MAX_PROMPTS = 64  # per request


def checkpoint() -> Checkpoint:
    """The checkpoint in HART_CHECKPOINT, or the bundled one. Raises ImportError under numpy 2."""
    if int(np.__version__.partition(".")[0]) > 1:
        raise ImportError(f"numpy {np.__version__}: Triton's Python stub requires numpy 1 first on its path")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return Checkpoint.open(os.environ.get("HART_CHECKPOINT", "").strip() or bundled())


def answer(request: Any, work: Callable[[list[str]], dict[str, torch.Tensor]]) -> Any:
    """The stub's response: the tensors of `work` for the request's prompts, or an error.

    The reason is returned for an invalid prompt only. Other errors go to the server's log.
    """
    import triton_python_backend_utils as utils  # type: ignore[import-not-found]  # exists only inside the stub

    try:
        prompts = _prompts(utils.get_input_tensor_by_name(request, "prompt").as_numpy())
    except InvalidRequest as error:
        return utils.InferenceResponse(error=utils.TritonError(str(error), utils.TritonError.INVALID_ARG))
    try:
        with torch.inference_mode():
            outputs = work(prompts)
    except Exception as error:
        utils.Logger.log_error(f"{type(error).__name__}: {error}")
        return utils.InferenceResponse(error=utils.TritonError("internal error", utils.TritonError.INTERNAL))
    tensors = [utils.Tensor(name, np.ascontiguousarray(tensor.cpu().numpy())) for name, tensor in outputs.items()]
    return utils.InferenceResponse(output_tensors=tensors)


def _prompts(found: Any) -> list[str]:
    if not len(found):
        raise InvalidRequest.field("inputs[prompt]", "must not be empty")
    return prompt.decoded(found, "inputs[prompt]", MAX_PROMPTS)
