"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from common.stages import STAGES
from planner import profile
from planner.errors import PlanError
from planner.fleet import Autoscaling, Fleet, GatewayLimits, Loss
from planner.profile import Profile
from planner.workload import Mix


def add_profile(parser: argparse.ArgumentParser) -> None:
    """--profile and changes of it."""
    parser.add_argument("--profile", default="h100-1024", help="name in planner/profiles, or a .json file")
    parser.add_argument("--stretch", type=float, default=1.0, help="multiply every compute time (default: 1)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", dest="changes",
        help="change a number of the profile: ar_generator.queue_limit=32, decoder.devices=0.5",
    )  # fmt: skip


def add_mix(parser: argparse.ArgumentParser) -> None:
    """What requests ask for."""
    parser.add_argument("--images", default="1", metavar="N[:WEIGHT],…", help="images per request (default: 1)")
    parser.add_argument("--previews", type=float, default=0.0, metavar="SHARE", help="of the requests (default: 0)")
    parser.add_argument("--preview-every", type=int, default=2, metavar="SCALES")
    parser.add_argument("--deadline", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--format", default="png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--price", type=float, default=0.0, help="of one device for an hour")


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """What runs."""
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--max-ongoing", type=int, default=GatewayLimits().max_ongoing_requests, metavar="REQUESTS")
    parser.add_argument("--max-pending-decodes", type=int, default=GatewayLimits().max_pending_decodes)


def profile_of(arguments: argparse.Namespace) -> Profile:
    """The chosen profile with its changes. Raises PlanError."""
    found = profile.load(arguments.profile)
    if not arguments.stretch > 0:
        raise PlanError(f"--stretch {arguments.stretch}: expected more than 0")
    found = found.stretched(arguments.stretch)
    for change in arguments.changes:
        found = _changed(found, change)
    return found


def _changed(found: Profile, change: str) -> Profile:
    path, _, value = change.partition("=")
    stage, _, field = path.partition(".")
    current = getattr(found.stages.get(stage), field, None)
    if not isinstance(current, int | float):
        raise PlanError(f"--set {change}: {path} is no number of the profile")
    try:
        return found.with_stage(stage, **{field: type(current)(float(value))})
    except ValueError:
        raise PlanError(f"--set {change}: expected a number, not {value!r}") from None


def mix_of(arguments: argparse.Namespace) -> Mix:
    """The chosen mix. Raises PlanError."""
    images = []
    for part in arguments.images.split(","):
        count, _, weight = part.partition(":")
        try:
            images.append((int(count), float(weight or 1)))
        except ValueError:
            raise PlanError(f"--images {arguments.images}: expected N or N:WEIGHT, not {part!r}") from None
    if min(count for count, _ in images) < 1 or min(weight for _, weight in images) <= 0:
        raise PlanError(f"--images {arguments.images}: expected counts of 1 or more and weights over 0")
    if not 0 <= arguments.previews <= 1:
        raise PlanError(f"--previews {arguments.previews}: expected 0 to 1")
    return Mix(tuple(images), arguments.previews, arguments.preview_every, arguments.deadline, arguments.format)


def fleet_of(arguments: argparse.Namespace, replicas: Sequence[str] = (), **more: Any) -> Fleet:
    """The chosen fleet. `replicas`: STAGE=N. Raises PlanError."""
    limits = replace(
        GatewayLimits(),
        max_ongoing_requests=arguments.max_ongoing,
        max_pending_decodes=arguments.max_pending_decodes,
    )
    counts = dict.fromkeys(STAGES, 1) | {name: int(number) for name, number in pairs(replicas, "--replicas")}
    return Fleet(counts, arguments.gateways, limits, **more)


def pairs(words: Sequence[str], option: str) -> list[tuple[str, float]]:
    """STAGE=NUMBER arguments. Raises PlanError."""
    found = []
    for word in words:
        name, _, number = word.partition("=")
        try:
            found.append((name, float(number)))
        except ValueError:
            raise PlanError(f"{option} {word}: expected STAGE=NUMBER") from None
        if name not in STAGES:
            raise PlanError(f"{option} {word}: expected one of {', '.join(STAGES)}, not {name!r}")
    return found


def autoscaling_of(words: Sequence[str], policy: Autoscaling) -> dict[str, Autoscaling]:
    """STAGE=MIN:MAX arguments. Raises PlanError."""
    found = {}
    for word in words:
        name, _, bounds = word.partition("=")
        low, _, high = bounds.partition(":")
        if name not in STAGES or not (low.isdigit() and high.isdigit() and int(low) <= int(high)):
            raise PlanError(f"--autoscale {word}: expected STAGE=MIN:MAX")
        found[name] = replace(policy, min_replicas=int(low), max_replicas=int(high))
    return found


def losses_of(words: Sequence[str]) -> tuple[Loss, ...]:
    """STAGE=N@SECONDS arguments. Raises PlanError."""
    found = []
    for word in words:
        name, _, rest = word.partition("=")
        count, _, at = rest.partition("@")
        try:
            found.append(Loss(name, float(at), int(count)))
        except ValueError:
            raise PlanError(f"--lose {word}: expected STAGE=N@SECONDS") from None
    return tuple(found)
