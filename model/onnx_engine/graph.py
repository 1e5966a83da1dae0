"""A builder of ONNX graphs: nodes and weights by short names, no tracing.

Graphs stay in memory. Building all of them takes a tenth of a second, so that files of them would save nothing.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET, IR_VERSION = 20, 10
FUSED = "com.microsoft"
"""The domain of ONNX Runtime's own operations."""
LARGE = 1024
"""Bytes from which on a weight is kept beside the graph and not in it."""
END = int(np.iinfo(np.int64).max)
Array = np.ndarray[Any, Any]
Shape = Sequence[int | str]
"""A dimension is a number, or the name of one that differs from call to call."""


class Graph:
    """One graph while it is built. Values are their names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.weights: dict[str, Array] = {}
        """The large weights, which a session takes beside the graph."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}

    def input(self, name: str, shape: Shape, integer: bool = False) -> str:
        """An input, float32 or int64."""
        kind = TensorProto.INT64 if integer else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, shape: Shape) -> str:
        """Makes a value a float32 output. Returns its new name."""
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [name if found == value else found for found in names]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, values: Tensor) -> str:
        """A float32 constant. The same values are kept once."""
        return self._constant(values.detach().cpu().float().contiguous().numpy())

    def numbers(self, *values: int) -> str:
        """A constant (n,) of int64: shapes, axes, indices."""
        return self._constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A float32 constant without axes."""
        return self._constant(np.array(value, np.float32))

    def _constant(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = f"w{len(self._constants)}"
            if array.nbytes < LARGE:
                self._initializers.append(numpy_helper.from_array(array, name))
            else:
                self._initializers.append(_beside(name, array))
                self.weights[name] = array
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """One operation. Returns the name of its output, or a list of names of several. An absent input is ""."""
        names = [f"v{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def fused(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """One of ONNX Runtime's own operations."""
        return self.op(kind, *inputs, outputs=outputs, domain=FUSED, **attributes)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis, -1 takes what is left."""
        return self.op("Reshape", x, self.numbers(*shape))

    def linear(self, x: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """x (rows, in) and torch's weight (out, in) to (rows, out)."""
        inputs = [x, self.weight(weight.t())]
        return self.op("MatMul", *inputs) if bias is None else self.op("Gemm", *inputs, self.weight(bias))

    def silu(self, x: str) -> str:
        """x·sigmoid(x)."""
        return self.fused("QuickGelu", x, alpha=1.0)

    def slice(self, x: str, axis: int, start: str) -> str:
        """x from `start` (a value) on, along one axis."""
        return self.op("Slice", x, start, self.numbers(END), self.numbers(axis))

    def split(self, x: str, count: int, axis: int) -> list[str]:
        """Equal parts along one axis."""
        parts = self.op("Split", x, outputs=count, axis=axis, num_outputs=count)
        return [parts] if count == 1 else parts

    def serialized(self) -> bytes:
        """The model without its large weights."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hart")
        return made.SerializeToString()


def _beside(name: str, array: Array) -> TensorProto:
    """A float32 weight whose values a session takes from memory: the file that it names does not exist."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="memory")
    return made
