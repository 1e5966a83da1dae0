"""What runs: replicas, gateways and their limits, the autoscaler's behaviour, and the loss of replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.stages import STAGES
from planner.errors import PlanError


@dataclass(frozen=True)
class Autoscaling:
    """A HorizontalPodAutoscaler on `hart_load`, as the chart renders it for kinds `hpa` and `keda`."""

    min_replicas: int = 1
    max_replicas: int = 4
    target_load: float = 0.8
    scale_down_seconds: float = 300.0
    """The stabilization window of scale-down."""
    sync_seconds: float = 15.0
    """Between two decisions of the autoscaler."""
    metric_seconds: float = 15.0
    """Between two scrapes of the metric."""
    tolerance: float = 0.1
    """No change while load over target is within 1 plus or minus this."""
    up_percent: float = 100.0
    """Of the replicas at the start of `up_seconds`, that scale-up may add in it."""
    up_pods: int = 2
    up_seconds: float = 30.0
    down_pods: int = 1
    down_seconds: float = 60.0
    provision_seconds: float = 10.0
    """From the decision to the start of the process: scheduling, image, volume."""


@dataclass(frozen=True)
class GatewayLimits:
    """Settings of the gateway, by the names of `gateway/config.py`."""

    max_ongoing_requests: int = 256
    max_pending_decodes: int = 32
    deadline_margin_seconds: float = 0.02
    retry_attempts: int = 6
    retry_ratio: float = 0.2
    retry_per_second: float = 2.0
    retry_burst: float = 20.0
    max_waiting_requests: int = 0
    """Requests that one gateway holds while a stage has no replica; 0: they fail after READY_SECONDS."""


@dataclass(frozen=True)
class Loss:
    """Replicas of a stage that end at one moment, and start again after `provision_seconds` and the stage's start."""

    stage: str
    at: float
    """Seconds since the start of the simulation."""
    replicas: int = 1


@dataclass(frozen=True)
class Fleet:
    """A cluster's deployment."""

    replicas: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 1))
    gateways: int = 1
    limits: GatewayLimits = GatewayLimits()
    autoscaling: Mapping[str, Autoscaling] = field(default_factory=dict)
    """By stage. Stages without an entry keep their replicas."""
    losses: tuple[Loss, ...] = ()
    provision_seconds: float = 10.0
    """From the loss of a replica to the start of its successor's process."""

    def __post_init__(self) -> None:
        for stage, count in self.replicas.items():
            if stage not in STAGES:
                raise PlanError(f"replicas.{stage}: expected one of {', '.join(STAGES)}")
            if count < 0 or (count == 0 and stage not in self.autoscaling):
                raise PlanError(f"replicas.{stage}: expected 1 or more, not {count}")
        if self.gateways < 1:
            raise PlanError(f"gateways: expected 1 or more, not {self.gateways}")
        for loss in self.losses:
            if loss.stage not in STAGES:
                raise PlanError(f"lose {loss.stage}: expected one of {', '.join(STAGES)}")

    def count(self, stage: str) -> int:
        """Replicas of a stage at the start."""
        return self.replicas.get(stage, 1)
