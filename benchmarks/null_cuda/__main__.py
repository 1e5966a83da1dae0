"""Runs a command with a CUDA device that does nothing, on a machine that has none.

    python3 -m venv null
    null/bin/pip install torch==2.11.0 "nvidia-cuda-crt==13.0.*" transformers safetensors tqdm pillow   # 5 GB
    python -m benchmarks.null_cuda --python null/bin/python -m training.gpu --prefix null

The command runs in a CUDA build of torch. `device.cpp` implements the CUDA runtime, cuBLAS and the driver without
running kernels. So every value is meaningless, but the rest is real: the device and precision of each tensor, which
kernels exist for it, what torch's allocator reserves of 80 GiB, how often the host waits, and the host's time to launch
everything. Each process writes its figures when it ends. Needs g++ and nm, and a torch built for CUDA 13.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE / "device.cpp"
BUILD = Path(".cache/tools/null_cuda")
PRODUCTS = re.compile(r"gemm|gemv|Matmul$", re.IGNORECASE)
"""cuBLAS functions that count as operations."""
PRIMARY_CONTEXT = (
    "int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) { *flags = 0; *active = 1; return 0; }"
)


def packages_of(python: str) -> Path:
    """The folder that holds that interpreter's torch."""
    found = subprocess.run(
        [python, "-c", "import torch; print(torch.__path__[0], torch.version.cuda)"], capture_output=True, text=True
    )
    if found.returncode:
        raise SystemExit(f"--python {python}: {found.stderr.strip().splitlines()[-1]}")
    folder, version = found.stdout.split()
    if not version.startswith("13."):
        raise SystemExit(f"--python {python}: its torch is built for CUDA {version}: expected 13")
    return Path(folder).parent


def tool(name: str) -> str:
    """The path of a compiler program. Exits if it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name}: not installed; the device is built with gcc, g++ and nm")
    return found


def undefined_symbols(packages: Path) -> list[str]:
    """The undefined symbols of torch's libraries, sorted."""
    names: set[str] = set()
    for library in sorted((packages / "torch" / "lib").glob("*.so")):
        listing = subprocess.run([tool("nm"), "-D", "--undefined-only", library], capture_output=True, check=True)
        names.update(line.split()[-1].split("@")[0] for line in listing.stdout.decode().splitlines())
    return sorted(names)


def stand_ins(symbols: list[str], written: str) -> tuple[str, str]:
    """C sources of functions that return success: those of runtime and cuBLAS not in `written`, and the driver's."""
    by_hand = set(re.findall(r"\b(?:__cuda|cuda|cublas)\w+(?=\()", written))
    runtime = [name for name in symbols if re.match(r"__cuda|cuda[A-Z]|cublas", name) and name not in by_hand]
    driver = [name for name in symbols if re.match(r"cu(?!File)[A-Z]", name) and name not in PRIMARY_CONTEXT]
    counted = [name for name in runtime if PRODUCTS.search(name) and "Create" not in name]
    lines = ["int null_cuda_launched(void);"]
    lines += [f"int {name}(void) {{ return {'null_cuda_launched()' if name in counted else 0}; }}" for name in runtime]
    return "\n".join(lines), "\n".join([PRIMARY_CONTEXT, *(f"int {name}(void) {{ return 0; }}" for name in driver)])


def build(packages: Path) -> tuple[Path, Path]:
    """The library to preload before torch's, and the folder of the driver's stand-in."""
    BUILD.mkdir(parents=True, exist_ok=True)
    library, driver = BUILD / "libnull_cuda.so", BUILD / "driver" / "libcuda.so.1"
    driver.parent.mkdir(exist_ok=True)
    runtime, rest = stand_ins(undefined_symbols(packages), SOURCE.read_text())
    (BUILD / "runtime.c").write_text(runtime)
    (BUILD / "driver.c").write_text(rest)
    headers, quiet = packages / "nvidia" / "cu13" / "include", ["-fPIC", "-O1", "-w"]
    commands: list[list[str | Path]] = [
        [tool("gcc"), *quiet, "-fno-builtin", "-c", BUILD / "runtime.c", "-o", BUILD / "runtime.o"],
        [tool("g++"), *quiet, "-shared", f"-I{headers}", SOURCE, BUILD / "runtime.o", "-o", library],
        [tool("gcc"), *quiet, "-shared", "-Wl,-soname,libcuda.so.1", BUILD / "driver.c", "-o", driver],
    ]
    for command in commands:
        subprocess.run(command, check=True)
    return library.resolve(), driver.parent.resolve()


def main() -> None:
    """Run the command line; exits with the code of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.null_cuda",
        description=__doc__.splitlines()[0],
        epilog="All other arguments go to that interpreter: -m MODULE ...",
        allow_abbrev=False,  # an option of the command may share a prefix with one of these
    )
    parser.add_argument("--python", required=True, help="an interpreter with torch built for CUDA 13")
    parser.add_argument("--gib", type=float, default=80.0, help="memory of the device (default: %(default)g)")
    arguments, command = parser.parse_known_args()
    if not command:
        parser.error("nothing to run; for example -m training.gpu")
    if shutil.which(arguments.python) is None:
        parser.error(f"--python {arguments.python}: no such program")
    library, driver = build(packages_of(arguments.python))
    report = (BUILD / "report.txt").resolve()
    report.unlink(missing_ok=True)
    environment = {
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(driver),
        "PYTHONPATH": ":".join([str(HERE / "site"), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
        "NULL_CUDA_GIB": str(arguments.gib),
        "NULL_CUDA_REPORT": str(report),
    }
    code = subprocess.run([arguments.python, *command], env=os.environ | environment).returncode
    print(report.read_text() if report.exists() else "the device was not used", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
