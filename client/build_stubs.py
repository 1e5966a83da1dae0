"""Builds the typed Python stubs of protos/ with grpcio-tools and mypy-protobuf."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compile_protos(include: str, output: Path, protos: list[Path]) -> None:
    """Compile `protos` (found under the include path) into messages, stubs and their types below `output`."""
    import grpc_tools
    from grpc_tools import protoc

    well_known = str(Path(grpc_tools.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{include}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={output}" for kind in ("python", "grpc_python")]
    arguments += [f"--{kind}_out=quiet:{output}" for kind in ("mypy", "mypy_grpc")]
    if protoc.main([*arguments, *map(str, protos)]) != 0:
        raise SystemExit(f"build_stubs: protoc failed on {', '.join(map(str, protos))}")


def main() -> None:
    """Write client/hart/v1/*_pb2* and gateway/keda/*_pb2*."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    protos = ROOT / "protos"
    for folder in (ROOT / "client/hart/v1", ROOT / "gateway/keda"):
        for stale in folder.glob("*_pb2*"):
            stale.unlink()
    compile_protos(str(protos), ROOT / "client", sorted((protos / "hart/v1").glob("*.proto")))
    keda = protos / "keda"
    compile_protos(f"gateway/keda={keda}", ROOT, sorted(keda.glob("*.proto")))


if __name__ == "__main__":
    main()
