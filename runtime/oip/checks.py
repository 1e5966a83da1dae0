"""Checks an Open Inference Protocol request against a model's description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritonclient.grpc import service_pb2

from runtime.deadline import Deadline
from runtime.errors import InvalidRequest, NotFound
from runtime.oip import codec
from runtime.oip.model import Array, InferRequest, Model, Parameter, TensorSpec

# Triton's clients set these on every request. They are accepted and ignored.
_IGNORED_PARAMETERS = frozenset({"triton_enable_empty_final_response", "binary_data_output"})


def find(models: Mapping[str, Model], name: str, version: str) -> Model:
    """The model of this name and version ("" means any). Raises NotFound."""
    model = models.get(name)
    if model is None:
        raise NotFound(f"unknown model {name[:80]!r}; served here: {', '.join(models)}")
    if version and version not in model.versions:
        raise NotFound(f"model {name} has no version {version[:20]!r}; served here: {', '.join(model.versions)}")
    return model


def read(model: Model, message: service_pb2.ModelInferRequest, deadline: Deadline) -> InferRequest:
    """Parse the request's inputs and parameters. Raises InvalidRequest before a tensor is allocated."""
    given = _parameters(model, message)
    timeout = given.pop("timeout", None)
    if timeout is not None:  # microseconds (Triton's extension)
        deadline = min(deadline, Deadline.after(float(timeout) / 1e6), key=lambda d: d.at)
    _check_outputs(model, message)
    return InferRequest(_inputs(model, message), given, deadline, message.id[:128])


def requested_outputs(model: Model, message: service_pb2.ModelInferRequest) -> list[str]:
    """Names of the requested outputs; all outputs without a request for some."""
    return [o.name for o in message.outputs] or [o.name for o in model.outputs]


def _parameters(model: Model, message: service_pb2.ModelInferRequest) -> dict[str, Parameter]:
    given = codec.parameters(message.parameters)
    result: dict[str, Parameter] = {}
    for name, value in given.items():
        if name in _IGNORED_PARAMETERS or (name in ("priority", "timeout") and value == 0):  # Triton: 0 means unset
            continue
        kind: type | None = int if name == "timeout" else model.parameters.get(name)
        if kind is None:
            known = ", ".join(model.parameters) or "none"
            raise InvalidRequest.field(f"parameters[{name[:80]}]", f"unknown parameter; known: {known}")
        result[name] = _convert(name, value, kind)
    return result


def _convert(name: str, value: Parameter, kind: type) -> Parameter:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    if isinstance(value, str) and kind in (int, float):  # KServe's REST bridge sends numbers as text
        try:
            number = int(value) if kind is int else float(value)
        except ValueError:
            number = None
        if number is not None and (kind is float or abs(number) < 2**63):  # int64, as on the wire
            return number
    raise InvalidRequest.field(f"parameters[{name}]", f"must be of type {kind.__name__}, not {str(value)[:40]!r}")


def _check_outputs(model: Model, message: service_pb2.ModelInferRequest) -> None:
    known = {o.name for o in model.outputs}
    for output in message.outputs:
        if output.name not in known:
            detail = f"unknown output {output.name[:80]!r}; known: {', '.join(known)}"
            raise InvalidRequest.field("outputs", detail)
        _refuse_extensions(output, f"outputs[{output.name}]")


def _refuse_extensions(tensor: service_pb2.ModelInferRequest.InferInputTensor, field: str) -> None:
    for name in tensor.parameters:
        if name.startswith("shared_memory") or name == "classification":
            raise InvalidRequest.field(f"{field}.parameters[{name[:80]}]", "this extension is not supported")


def _inputs(model: Model, message: service_pb2.ModelInferRequest) -> dict[str, Array]:
    specs = {spec.name: spec for spec in model.inputs}
    names = [tensor.name for tensor in message.inputs]
    for name in names:
        if name not in specs:
            raise InvalidRequest.field("inputs", f"unknown input {name[:80]!r}; known: {', '.join(specs)}")
    if sorted(names) != sorted(specs):
        raise InvalidRequest.field("inputs", f"each of {', '.join(specs)} must occur once, not {names}")
    raw: Sequence[bytes] = message.raw_input_contents
    if raw and len(raw) != len(names):
        detail = f"has {len(raw)} entries for {len(names)} inputs"
        raise InvalidRequest.field("raw_input_contents", detail)
    for tensor in message.inputs:
        _check_tensor(specs[tensor.name], tensor, model.max_elements)
    return {t.name: _array(t, raw[i] if raw else None) for i, t in enumerate(message.inputs)}


def _check_tensor(spec: TensorSpec, tensor: service_pb2.ModelInferRequest.InferInputTensor, max_elements: int) -> None:
    field = f"inputs[{spec.name}]"
    shape = tuple(tensor.shape)
    codec.element_count(shape, f"{field}.shape", max_elements)
    spec.check(tensor.datatype, shape)
    _refuse_extensions(tensor, field)


def _array(tensor: service_pb2.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Array:
    shape = tuple(tensor.shape)
    field = f"inputs[{tensor.name}]"
    if raw is None:
        return codec.decode_typed(tensor.contents, tensor.datatype, shape, field)
    if tensor.HasField("contents"):
        raise InvalidRequest.field(f"{field}.contents", "must be absent if raw_input_contents is set")
    return codec.decode_raw(raw, tensor.datatype, shape, field)
