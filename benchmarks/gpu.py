"""All of the project's work for a GPU, step after step, in at most ten minutes a call. Installs nothing.

    python -m benchmarks.gpu [--out FOLDER] [--minutes 9.5] [--steps tests generate] [--wheels FOLDER]

Steps, in this order: the golden cases and the kernels' tests on the device (`tests`); each kernel against its twin and
the library (`kernels`); what is left to libraries, in each of their ways (`libraries`); full-size drawing (`generate`);
the whole cluster on the device (`cluster`); training with the minutes that are left (`training`). Each runs in a
process group of its own with its own time limit: one that fails or hangs costs the others nothing. `gpu.json` in the
folder says after every step what came of it, and a call with the same folder passes over steps that are done; the steps
that can be continued continue. A step that lacks something here is recorded as skipped, with the reason. `--wheels`
names a folder of wheels that are unpacked beside the checkout for the length of the call. `--dry-run` does everything
at a toy size on the CPU: a rehearsal.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SPARE_SECONDS = 10.0
"""Of the call's time, for writing and ending."""
GRACE_SECONDS = 15.0
"""Between SIGTERM and SIGKILL: a cluster ends its processes meanwhile."""
TAIL = 1500
NOT_READY = 2
DONE, FAILED, TIMED_OUT, SKIPPED, NO_TIME = "done", "failed", "timed out", "skipped", "no time left"
CLUSTER_MODULES = (
    "circus",
    "gateway.keda.externalscaler_pb2_grpc",
    "google.rpc",
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_status",
    "hart.v1.images_pb2",
    "isal",
    "opentelemetry.exporter.otlp.proto.grpc",
    "opentelemetry.exporter.prometheus",
    "pydantic_settings",
    "starlette",
    "tokenizers",
    "tritonclient.grpc",
    "typer",
    "typing_inspection",
    "uvicorn",
    "uvloop",
    "zmq",
)


@dataclass(frozen=True)
class Step:
    """One piece of work: its command, its limit, and what it needs."""

    name: str
    command: Callable[[float], list[str]]
    """Of the seconds that it may take; what follows the interpreter."""
    seconds: float
    """The most that it may take; less where less is left of the call."""
    required_digests: tuple[str, ...] = ()
    """Modules without which it is skipped."""
    attempts: int = 1
    """A step that continues where it ended is started again after a failure."""
    skip_code: int | None = None
    """The exit code by which the command says that this machine lacks something."""


def steps(out: Path, dry: bool) -> list[Step]:
    """All steps in their order."""
    toy = ["--device", "cpu", "--toy"] if dry else []
    shorter = ["--rounds", "1", "--batches", "1", "2", "--growth", "6"] if dry else []

    def generate(_: float) -> list[str]:
        files = ["--json", str(out / "generate.json"), "--profile", str(out / "profile.txt")]
        return ["-m", "benchmarks.generate", *toy, *shorter, *files]

    def cluster(_: float) -> list[str]:
        files = ["--json", str(out / "cluster.json"), "--logs", str(out / "cluster-logs.txt")]
        return ["-m", "benchmarks.gpu_cluster", *toy, *files]

    def kernels(_: float) -> list[str]:
        return ["-m", "benchmarks.kernels", *toy, "--json", str(out / "kernels.json")]

    def libraries(_: float) -> list[str]:
        return ["-m", "benchmarks.libraries", *toy, "--json", str(out / "libraries.json")]

    def training(seconds: float) -> list[str]:
        return ["-m", "training.gpu", "--minutes", f"{seconds / 60:.2f}", *(["--dry-run"] if dry else [])]

    return [
        Step("tests", lambda _: tests(dry), 600 if dry else 120, ("pytest",)),
        Step("kernels", kernels, 200 if dry else 60, attempts=2),
        Step("libraries", libraries, 60, attempts=2),
        Step("generate", generate, 400 if dry else 240, attempts=3),
        Step("cluster", cluster, 400 if dry else 170, CLUSTER_MODULES),
        Step("training", training, 600, skip_code=NOT_READY),
    ]


def tests(dry: bool) -> list[str]:
    """Golden cases and kernels' tests by pytest, with the plugins that are there."""
    where = ["tests/model/test_golden.py", "tests/kernels"]
    if not dry:  # a CPU's interpreter takes minutes for these
        where[1:1] = ["tests/model/slow/test_kernels.py", "tests/model/test_graphs.py"]
    device = "cpu" if dry else "cuda"
    options = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-q", "--durations=5", "-rfEs"]
    if present("pytest_timeout"):
        options += ["--timeout", "60"]
    if present("xdist") and not dry:
        options += ["-n", str(min(8, os.cpu_count() or 1))]  # compiling takes most of the time
    if not present("hypothesis"):
        print("hypothesis is not installed: tests that need it are left out", flush=True)
    return ["-m", "pytest", *options, "--device", device, *where]


def present(module: str) -> bool:
    """Whether a module, with dots or without, can be imported here."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


class Ledger:
    """What came of each step, in a file that is written at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"steps": {}}

    def state(self, name: str) -> str | None:
        """DONE, FAILED, …; None for a step that was never begun."""
        found: dict[str, Any] = self.content["steps"].get(name, {})
        return found.get("state")

    def note(self, name: str, state: str, **more: object) -> None:
        """Records a step's state and prints it."""
        self.content["steps"][name] = {"state": state, **more}
        self.write()
        print(f"[{name}] {state} {json.dumps({k: v for k, v in more.items() if k != 'tail'})}", flush=True)

    def write(self) -> None:
        """Writes the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def work(todo: list[Step], ledger: Ledger, end: float, environment: Mapping[str, str]) -> None:
    """Runs the steps that are not done, none beyond `end` on the monotonic clock."""
    for step in todo:
        if ledger.state(step.name) == DONE:
            continue
        if missing := [module for module in step.required_digests if not present(module)]:
            ledger.note(step.name, SKIPPED, reason=f"not installed here: {', '.join(missing)}")
            continue
        for attempt in range(1, step.attempts + 1):
            left = min(step.seconds, end - time.monotonic() - SPARE_SECONDS)
            if left < GRACE_SECONDS:
                if attempt == 1:
                    ledger.note(step.name, NO_TIME)
                break
            if run_step(step, left, ledger, environment, attempt):
                break


def run_step(step: Step, limit: float, ledger: Ledger, environment: Mapping[str, str], attempt: int) -> bool:
    """Runs one step once; whether there is nothing to be gained by starting it again."""
    log = ledger.path.parent / "log.txt"  # one for all: a lent machine gives back few files
    start = time.monotonic()
    with log.open("a") as file:
        file.write(f"\n== {step.name}, attempt {attempt}, at most {limit:.0f} s\n")
        file.flush()
        begin = file.tell()
        code = run_limited([sys.executable, *step.command(limit)], limit, file, environment)
    seconds = round(time.monotonic() - start, 1)
    tail = log.read_bytes()[begin:].decode(errors="replace")[-TAIL:]
    if code is None:
        ledger.note(step.name, TIMED_OUT, seconds=seconds, limit=round(limit), attempt=attempt, tail=tail)
    elif code == 0:
        ledger.note(step.name, DONE, seconds=seconds, attempt=attempt, tail=tail)
    elif code == step.skip_code:
        ledger.note(step.name, SKIPPED, seconds=seconds, reason=tail.strip()[-300:])
    else:
        ledger.note(step.name, FAILED, seconds=seconds, code=code, attempt=attempt, tail=tail)
    return code in (0, None, step.skip_code)


def run_limited(command: list[str], limit: float, log: Any, environment: Mapping[str, str]) -> int | None:
    """The exit code, or None for a command that took longer; its whole process group is ended either way."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[Any]) -> None:
    """SIGTERM to the process's group, SIGKILL after the grace."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if number is signal.SIGTERM:
            time.sleep(0.2)  # the group's others
    process.wait()


def unpack(wheels: Path, target: Path) -> None:
    """The wheels that the caller chose as importable files; what a wheel holds beside them is left out."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    versions = {name: present(name) and _version(name) for name in ("torch", "triton", "transformers", "numpy")}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"python": sys.version.split()[0], **versions, "processors": os.cpu_count(), "devices": names}


def _version(name: str) -> str:
    return str(getattr(importlib.import_module(name), "__version__", "?"))


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    out = Path(os.environ.get("OUT") or ".cache/gpu")
    parser.add_argument("--out", type=Path, default=out, help="the folder of what is measured (default: $OUT)")
    parser.add_argument("--minutes", type=float, default=9.5, help="what this call may take")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in steps(out, False)], help="default: all")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to import from")
    parser.add_argument("--dry-run", action="store_true", help="everything at a toy size on the CPU")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    if not present("torch"):
        print("torch is not installed here; this work needs it and installs nothing.", file=sys.stderr)
        return NOT_READY
    import torch

    if not arguments.dry_run and not torch.cuda.is_available():
        print("No CUDA device: this work wants one GPU with 80 GB and torch built for it.", file=sys.stderr)
        return NOT_READY
    ledger = Ledger(arguments.out.resolve() / "gpu.json")
    with tempfile.TemporaryDirectory() as site:
        if arguments.wheels:
            unpack(arguments.wheels, Path(site))
        paths = [site, str(ROOT), str(ROOT / "client")]
        sys.path[:0] = paths
        inherited = os.environ.get("PYTHONPATH")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([inherited] if inherited else [])])}
        environment["PYTHONUNBUFFERED"] = "1"
        if arguments.dry_run:
            environment.setdefault("TRITON_INTERPRET", "1")
        ledger.content["machine"] = machine()
        ledger.write()
        chosen = [step for step in steps(ledger.path.parent, arguments.dry_run)
                  if not arguments.steps or step.name in arguments.steps]  # fmt: skip
        work(chosen, ledger, end, environment)
    left = [step.name for step in chosen if ledger.state(step.name) != DONE]
    print(f"not done: {', '.join(left)}" if left else "all done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
