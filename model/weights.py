"""Weights on disk: safetensors, sharded safetensors and pickles, read a few tensors at a time.

Every read opens the file anew and copies, so that the pages of a mapped file are given back as one goes: a loader's
peak is the weights in memory plus one portion, whatever the file's own precision.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.errors import CheckpointError

PORTION = 64 * 2**20
"""Bytes that are read at a time."""


class Weights(Protocol):
    """A file (or shards) of named tensors."""

    path: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, without reading its data."""

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, on the CPU, in the file's own dtype."""


class SafetensorsFile:
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: no readable safetensors file: {error}") from error

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            with safe_open(self.path, framework="pt") as file:
                yield name, file.get_tensor(name)


class Pickle:
    """A torch pickle. Only tensors and plain containers are accepted: a pickle that would run code is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> dict[str, Tensor]:
        try:
            try:
                state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of the old, unzipped format cannot be mapped
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{self.path}: no pickle of plain weights, and not run: {reason}") from error
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{self.path}: expected a dictionary of tensors")
        return dict(state)

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


class Shards:
    """Shards that an index names: {"weight_map": {tensor: file}}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.files: dict[str, str] = dict(json.loads(path.read_text("utf-8-sig"))["weight_map"])
            if not all(isinstance(file, str) for file in self.files.values()):
                raise TypeError("a file's name is not a string")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: expected a JSON object with a weight_map: {error!r}") from error

    def _shard(self, file: str) -> Weights:
        path = self.path.parent / file
        if Path(file).name != file:
            raise CheckpointError(f"{self.path}: the shard {file!r} is not a file name")
        if not path.exists():
            raise CheckpointError(f"{path}: no such file, though {self.path.name} names it; the download is not whole")
        return of_file(path)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(self.files.values())):
            found |= self._shard(file).shapes()
        missing = sorted(set(self.files) - set(found))
        if missing:
            raise CheckpointError(f"{self.path}: the shards lack {_listed(missing)}")
        return {name: found[name] for name in self.files}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        wanted = list(names)
        for file in sorted({self.files[name] for name in wanted}):
            yield from self._shard(file).read(name for name in wanted if self.files[name] == file)


def of_file(path: Path) -> Weights:
    """The reader for a path, by its ending."""
    if path.name.endswith(".index.json"):
        return Shards(path)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else Pickle(path)


def find(folder: Path, stem: str) -> tuple[Weights, list[Path]]:
    """The weights `stem` (such as ema_model) in a folder, safetensors preferred; and the files passed over for them.

    Raises CheckpointError naming what was looked for and what is there.
    """
    endings = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
    there = [folder / f"{stem}{ending}" for ending in endings if (folder / f"{stem}{ending}").exists()]
    if not there:
        wanted = ", ".join(f"{stem}{ending}" for ending in endings)
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder}: no weights; expected one of {wanted}; found: {found or 'an empty folder'}")
    return of_file(there[0]), there[1:]


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
    """Gives a module that was built on the meta device its weights, in `dtype` (modules of `float32` excepted).

    rename maps a file's key to the module's, or None for one that belongs to a part that is not wanted; `ignore` has
    patterns of file keys that are passed over. Any other missing or unexpected key, or shape, is a CheckpointError.
    """
    shapes = weights.shapes()
    keys = {name: rename(name) for name in shapes if not any(fnmatch(name, pattern) for pattern in ignore)}
    sources = {key: name for name, key in keys.items() if key is not None}
    wanted = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    _check_keys(weights.path, set(wanted), set(sources))
    for key, name in sources.items():
        if shapes[name] != tuple(wanted[key].shape):
            raise CheckpointError(
                f"{weights.path}: {name} has shape {shapes[name]}, the config asks for {tuple(wanted[key].shape)}"
            )
    kept = {id(parameter) for part in float32 for parameter in part.parameters()}
    targets = {name: key for key, name in sources.items()}
    for name, tensor in weights.read(targets):
        wide = id(wanted[targets[name]]) in kept
        _assign(module, targets[name], tensor.to(device, torch.float32 if wide else dtype, copy=True))


def _assign(module: nn.Module, key: str, tensor: Tensor) -> None:
    owner, _, leaf = key.rpartition(".")
    module.get_submodule(owner)._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)


def _check_keys(path: Path, wanted: set[str], found: set[str]) -> None:
    told = misfit(wanted - found, found - wanted)
    if told:
        raise CheckpointError(f"{path}: the weights do not fit the config; {told}")


def misfit(missing: set[str], unexpected: set[str]) -> str:
    """Both kinds of keys in words; an empty string where there are none."""
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected)}
    return "; ".join(f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names)


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
