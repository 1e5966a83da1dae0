"""Weight files: safetensors, sharded safetensors and pickles, read in portions.

Every read reopens the file and copies, which releases the pages of the memory map. The peak memory of a load is
the weights in their target precision plus one portion.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.errors import CheckpointError

PORTION = 64 * 2**20
"""Bytes per portion."""
UNAVERAGED = ("model", "pytorch_model")
"""Names of weights as training left them; inference needs the averaged ones."""
CONTAINERS = ("state_dict", "model", "module")
"""Keys under which a training framework's pickle holds the weights."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before every name."""


class Weights(Protocol):
    """Named tensors in a file or in shards."""

    path: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, without reading data. Raises CheckpointError."""

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yields the named tensors on the CPU, in the file's dtype."""


class SafetensorsFile:
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: cannot read as safetensors: {error}") from error

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            with safe_open(self.path, framework="pt") as file:
                yield name, file.get_tensor(name)


class Pickle:
    """A torch pickle, loaded with weights_only: a pickle that would run code raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> dict[str, Tensor]:
        try:
            try:
                state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # the old, unzipped format does not support mmap
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"{self.path}: not a pickle of plain tensors; its code was not run: {reason}"
            ) from error
        return _plain(self._unwrapped(state))

    def _unwrapped(self, state: object) -> Mapping[str, Tensor]:
        """The tensors by name, also from within a training state's `state_dict` or `model`."""
        if _holds_tensors(state):
            return state
        nested = {key: state[key] for key in CONTAINERS if key in state} if isinstance(state, Mapping) else {}
        usable = [value for value in nested.values() if _holds_tensors(value)]
        if len(usable) == 1:
            return usable[0]
        keys = f" with the keys {_listed(sorted(map(str, state)))}" if isinstance(state, Mapping) else ""
        raise CheckpointError(
            f"{self.path}: expected a dictionary of tensors, or one such dictionary under one of "
            f"{', '.join(CONTAINERS)}; found a {type(state).__name__}{keys}"
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._open().items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        portion: list[str] = []
        size = 0
        sizes = {name: tensor.numel() * tensor.itemsize for name, tensor in self._open().items()}
        for name in names:
            portion.append(name)
            size += sizes[name]
            if size >= PORTION:
                yield from self._portion(portion)
                portion, size = [], 0
        yield from self._portion(portion)

    def _portion(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        state = self._open()
        for name in names:
            yield name, state[name]


def _holds_tensors(state: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(state, Mapping) and bool(state) and all(isinstance(value, Tensor) for value in state.values())


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without the prefixes that wrap every name."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            return _plain({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return dict(state)


class Shards:
    """Shards listed by an index file: {"weight_map": {tensor: file}}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.files: dict[str, str] = dict(json.loads(path.read_text("utf-8-sig"))["weight_map"])
            if not all(isinstance(file, str) for file in self.files.values()):
                raise TypeError("a file name is not a string")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: expected a JSON object with a weight_map: {error!r}") from error

    def _shard(self, file: str) -> Weights:
        path = self.path.parent / file
        if Path(file).name != file:
            raise CheckpointError(f"{self.path}: the shard {file!r} is not a file name")
        if not path.exists():
            raise CheckpointError(f"{path}: no such file, but {self.path.name} lists it; the download is incomplete")
        return of_file(path)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(self.files.values())):
            found |= self._shard(file).shapes()
        missing = sorted(set(self.files) - set(found))
        if missing:
            raise CheckpointError(f"{self.path}: missing in the shards: {_listed(missing)}")
        return {name: found[name] for name in self.files}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        requested = list(names)
        for file in sorted({self.files[name] for name in requested}):
            yield from self._shard(file).read(name for name in requested if self.files[name] == file)


def of_file(path: Path) -> Weights:
    """The reader for a path, by its extension."""
    if path.name.endswith(".index.json"):
        return Shards(path)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else Pickle(path)


def find(folder: Path, *stems: str) -> tuple[Weights, list[Path]]:
    """The weights named by the first of `stems` (such as ema_model) in a folder, and the unused files of that stem.

    Safetensors take precedence. Raises CheckpointError that names the expected files and the files found.
    """
    endings = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
    for stem in stems:
        present = [path for ending in endings if (path := folder / f"{stem}{ending}").exists()]
        if present:
            break
    else:
        expected = ", ".join(f"{stems[0]}{ending}" for ending in endings)
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        others = [path for path in folder.glob("*.safetensors") if path.stem in UNAVERAGED]
        hint = f"; if {others[0].name} has averaged weights, rename it to {stems[0]}.safetensors" if others else ""
        raise CheckpointError(
            f"{folder}: no weights; expected one of {expected}; found: {found or 'an empty folder'}{hint}"
        )
    return of_file(present[0]), present[1:]


class _Uninitialised(TorchFunctionMode):
    """Skips the functions of torch.nn.init: on the meta device one of them imports torch's compiler, for seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules built inside have shapes but no data, for `fill`."""
    with torch.device("meta"), _Uninitialised():
        yield


def fill(
    module: nn.Module,
    weights: Weights,
    *,
    rename: Callable[[str], str | None],
    ignore: tuple[str, ...],
    dtype: torch.dtype,
    device: torch.device,
    float32: tuple[nn.Module, ...] = (),
) -> None:
    """Loads weights into a module built on the meta device, in `dtype` (float32 for the modules in `float32`).

    `rename` maps a file's key to the module's, or to None to skip it. `ignore` has patterns of file keys to skip.
    Raises CheckpointError for any other missing or unexpected key, and for a wrong shape.
    """
    shapes = weights.shapes()
    keys = {name: rename(name) for name in shapes if not any(fnmatch(name, pattern) for pattern in ignore)}
    sources = {key: name for name, key in keys.items() if key is not None}
    targets = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    _check_keys(weights.path, set(targets), set(sources))
    for key, name in sources.items():
        if shapes[name] != tuple(targets[key].shape):
            raise CheckpointError(
                f"{weights.path}: {name} has shape {shapes[name]}, the config requires {tuple(targets[key].shape)}"
            )
    kept = {id(parameter) for part in float32 for parameter in part.parameters()}
    key_of = {name: key for key, name in sources.items()}
    for name, tensor in weights.read(key_of):
        wide = id(targets[key_of[name]]) in kept
        _assign(module, key_of[name], tensor.to(device, torch.float32 if wide else dtype, copy=True))


def _assign(module: nn.Module, key: str, tensor: Tensor) -> None:
    owner, _, leaf = key.rpartition(".")
    module.get_submodule(owner)._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)


def _check_keys(path: Path, expected: set[str], found: set[str]) -> None:
    difference = key_difference(expected - found, found - expected)
    if difference:
        raise CheckpointError(f"{path}: the weights do not match the config; {difference}")


def key_difference(missing: set[str], unexpected: set[str]) -> str:
    """Missing and unexpected keys as text for an error; empty if there are none."""
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
    return "; ".join(f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names)


def _listed(names: list[str], max_names: int = 8) -> str:
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(names[:max_names]) + more
