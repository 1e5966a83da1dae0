"""Compute a profile of the released model from its arithmetic, for a device on which nothing was measured."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from planner.arithmetic import DEVICES, profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--device", choices=DEVICES, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the peak rates that is reached (default: 0.5)")
    parser.add_argument("--start-seconds", type=float, default=60.0, help="of every stage (default: 60)")
    parser.add_argument("--output", type=Path, help="the file to write (default: standard output)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    device = replace(DEVICES[arguments.device], share=arguments.share)
    name = arguments.output.stem if arguments.output else f"{device.name}-1024-computed"
    text = profile(device, name, arguments.start_seconds).to_json()
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text, end="")
    return 0
