"""Why no image can be drawn, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.stages import STAGES
from gateway.config import GatewaySettings
from gateway.routing.compatibility import CompatibleReplicas
from runtime.calls.pool import Pool
from runtime.calls.replica import ReplicaState
from runtime.errors import StageUnavailable

MAX_ADDRESSES = 4
_SENTENCES = {
    ReplicaState.FAILED: "no answer from {}",
    ReplicaState.NOT_READY: "starting or draining: {}",
    ReplicaState.UNKNOWN: "not probed yet: {}",
}


def problems(pools: Mapping[str, Pool], compatible: CompatibleReplicas, settings: GatewaySettings) -> Iterator[str]:
    """One sentence for each stage that cannot serve; then what is wrong between stages that could."""
    missing = [stage for stage in STAGES if not pools[stage].ready]
    for stage in missing:
        yield f"{stage}: {_why(stage, pools[stage], settings)}"
    if missing:
        return
    try:
        compatible.generators(compatible.text_encoder())
    except StageUnavailable as error:
        yield error.message


def _why(stage: str, pool: Pool, settings: GatewaySettings) -> str:
    where = f"HART_{stage.upper()}={settings.where(stage)}"
    if not pool.replicas:
        if settings.min_replicas(stage) == 0:
            return f"scaled to zero: a request starts it ({where})"
        return f"no replica is found at {where}"
    parts = []
    for state, sentence in _SENTENCES.items():
        found = sorted(replica.address for replica in pool.replicas if replica.state is state)
        if found:
            more = f" and {len(found) - MAX_ADDRESSES} more" if len(found) > MAX_ADDRESSES else ""
            parts.append(sentence.format(", ".join(found[:MAX_ADDRESSES]) + more))
    return f"no replica is ready ({'; '.join(parts)})"
