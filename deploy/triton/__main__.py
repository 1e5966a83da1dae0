"""`python -m deploy.triton`: run the Triton Inference Server with the models of this folder, replacing this process.

    python -m deploy.triton --port 8001                      # safety and text_encoder
    HART_SAFETY=oip://127.0.0.1:8001/safety python -m gateway

The server comes from the package nvidia-pytriton, fetched once into .cache/tools with the numpy that its Python stub
needs. Checkpoint: HART_CHECKPOINT.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(__file__).with_name("models")
PACKAGE, NUMPY = "nvidia-pytriton==0.7.0", "numpy==1.26.4"
HOME = ROOT / ".cache" / "tools" / "triton-0.7.0"
SERVER, PYTHON = Path("pytriton") / "tritonserver", Path("python")
NAMES = tuple(sorted(folder.name for folder in MODELS.iterdir()))


class ToolMissing(Exception):
    """The server cannot be fetched; the message says what was tried."""


def server() -> Path:
    """The folder with bin/ and backends/, fetched if missing. Raises ToolMissing."""
    if not HOME.exists():
        _fetch(HOME)
    return HOME / SERVER


def _fetch(home: Path) -> None:
    partial = home.with_name(f".{home.name}.{os.getpid()}")
    # Without dependencies: those belong to its Python library, which is not used here.
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]
    try:
        for package, folder in ((PACKAGE, partial), (NUMPY, _environment(partial / PYTHON))):
            subprocess.run([*words, str(folder), package], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        said = getattr(error, "stderr", "") or str(error)
        raise ToolMissing(f"{PACKAGE} cannot be fetched: {said.strip()[-500:]}") from error
    found = partial / SERVER
    stub = found / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    if not stub.exists():
        shutil.rmtree(partial, ignore_errors=True)
        raise ToolMissing(f"{PACKAGE} has no stub for Python 3.{sys.version_info.minor}")
    shutil.copy(stub, found / "backends" / "python")
    partial.rename(home)


def _environment(folder: Path) -> Path:
    """An environment with this one's packages, preceded by those in the returned folder."""
    venv.create(folder, with_pip=False)
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "hart.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return own


def command(
    port: int, models: tuple[str, ...] = NAMES, host: str = "127.0.0.1", prefix: str = "hart_triton"
) -> list[str]:
    """The server's command line: gRPC only, models loaded at the start. `prefix`: of its files in /dev/shm, which a
    killed server leaves behind."""
    home = server()
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={MODELS}",
        f"--backend-directory={home / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models),
        f"--grpc-address={host}",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=310",
        "--disable-auto-complete-config",
    ]


def environment() -> dict[str, str]:
    """The server's environment. Its Python stub uses the first `python3` on the path: this one, with numpy 1 in front
    of its packages, and its standard library."""
    own = dict(os.environ)
    libraries = sysconfig.get_config_var("LIBDIR") or ""
    own["LD_LIBRARY_PATH"] = ":".join(part for part in (libraries, own.get("LD_LIBRARY_PATH", "")) if part)
    own["PATH"] = f"{HOME / PYTHON / 'bin'}:{own.get('PATH', '')}"
    own.setdefault("OMP_NUM_THREADS", "1")
    return own


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m deploy.triton", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--port", type=int, default=8001, help="of gRPC (default 8001)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    given = parser.parse_args()
    if unknown := set(given.models) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    try:
        words = command(given.port, tuple(given.models) or NAMES, given.host)
    except ToolMissing as error:
        print(f"deploy.triton: {error}", file=sys.stderr)
        return 1
    return os.execve(words[0], words, environment())  # noqa: S606 - our own command line, no shell


if __name__ == "__main__":
    sys.exit(main())
