"""A graph that runs: one session of ONNX Runtime on the CPU."""

import numpy as np
import onnxruntime
from onnxruntime import InferenceSession, OrtValue, SessionOptions

from model.onnx_engine.graph import Array, Graph

ERRORS_ONLY = 3
SPIN_MICROSECONDS = 200
"""How long a thread spins for the next piece of work before it sleeps."""


class Session:
    """Runs one graph. Float32 inputs and outputs; int64 inputs where the graph has them."""

    def __init__(self, graph: Graph, threads: int) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # By default a thread spins longer and keeps a core from other sessions: a picture took 2.5 times as long.
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
        options.add_external_initializers(
            list(graph.weights), [OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
        )
        self._session = InferenceSession(graph.serialized(), options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_outputs()]

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name."""
        found = self._session.run(None, {name: np.ascontiguousarray(array) for name, array in inputs.items()})
        return dict(zip(self._names, found, strict=True))


def version() -> str:
    """ONNX Runtime's."""
    return onnxruntime.__version__
