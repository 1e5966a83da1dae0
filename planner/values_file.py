"""A plan as values of the chart."""

from __future__ import annotations

import math
from typing import Any

import yaml

from common.stages import STAGES
from planner.fleet import Fleet
from planner.profile import Profile


def values(profile: Profile, fleet: Fleet) -> dict[str, Any]:
    """Values for `helm install -f`: replicas, autoscaling bounds, queue limits and batches. Devices and the model's
    place are the installation's own."""
    return {
        "gateway": {
            "replicas": fleet.gateways,
            "settings": {
                "max_ongoing_requests": fleet.limits.max_ongoing_requests,
                "max_pending_decodes": fleet.limits.max_pending_decodes,
            },
        },
        "stages": {stage: _stage(profile, fleet, stage) for stage in STAGES},
    }


def _stage(profile: Profile, fleet: Fleet, stage: str) -> dict[str, Any]:
    found = profile.stages[stage]
    settings: dict[str, Any] = {"max_queued_requests": found.queue_limit, "max_batch": found.max_batch}
    if stage == "ar_generator":
        settings |= {"slots": found.slots, "max_starvation_seconds": found.starvation_seconds}
    if stage == "decoder":
        settings["encode_threads"] = found.encode_threads
    result: dict[str, Any] = {"replicas": fleet.count(stage), "settings": settings}
    policy = fleet.autoscaling.get(stage)
    if policy is not None:
        result["autoscaling"] = {
            "kind": "keda",
            "minReplicas": policy.min_replicas,
            "maxReplicas": policy.max_replicas,
            "targetLoad": policy.target_load,
            "scaleDownSeconds": math.ceil(policy.scale_down_seconds),
        }
    if found.start_seconds > 300:
        result["startupSeconds"] = math.ceil(2 * found.start_seconds)
    return result


def text(profile: Profile, fleet: Fleet, title: str) -> str:
    """The values as YAML under a comment."""
    body = yaml.safe_dump(values(profile, fleet), sort_keys=False)
    return f"# {title}\n{body}"
