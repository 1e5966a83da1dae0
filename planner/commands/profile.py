"""Make a profile from a running cluster: each stage describes its costs; requests measure the rest."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.stages import STAGES
from planner import describe, overheads
from planner.errors import PlanError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--endpoint", default="127.0.0.1:50051", help="the gateway; the stages follow it by default")
    parser.add_argument(
        "--stage", action="append", default=[], metavar="STAGE=ADDRESS", dest="stages",
        help="where one replica of a stage is (default: the ports of `make up` beside the endpoint)",
    )  # fmt: skip
    parser.add_argument("--name", required=True, help="the profile's")
    parser.add_argument("--requests", type=int, default=30, help="sent one after another to measure overheads; 0: none")
    parser.add_argument("--gateway-cpu", type=float, default=0.0, metavar="SECONDS", help="of its thread per request")
    parser.add_argument("--output", type=Path, help="the file to write (default: standard output)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Raises PlanError."""
    addresses = beside(arguments.endpoint) | dict(_pair(word) for word in arguments.stages)
    measured = overheads.Overheads()
    if arguments.requests:
        measured = overheads.measure(arguments.endpoint, arguments.requests)
    source = f"python -m planner profile --name {arguments.name} --requests {arguments.requests}"
    found = describe.profile_of(arguments.name, source, describe.describe(addresses), measured)
    text = describe.with_cpu(found, arguments.gateway_cpu).to_json()
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text, end="")
    return 0


def beside(endpoint: str) -> dict[str, str]:
    """The stages' addresses on the gateway's machine, as `make up` chooses them. Raises PlanError."""
    host, _, port = endpoint.rpartition(":")
    if not (host and port.isdigit()):
        raise PlanError(f"--endpoint {endpoint}: expected HOST:PORT")
    return {name: f"{host}:{int(port) + stage.port_offset}" for name, stage in STAGES.items()}


def _pair(word: str) -> tuple[str, str]:
    stage, _, address = word.partition("=")
    if stage not in STAGES or not address:
        raise PlanError(f"--stage {word}: expected STAGE=ADDRESS with one of {', '.join(STAGES)}")
    return stage, address
