"""What each replica says of itself: asked for, kept fresh, remembered. Knows no request, and nothing of what is done
with it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from hart.v1 import stage_pb2

from gateway.routing.compatibility import MODEL_STAGES, UNKNOWN_MODEL, CompatibleReplicas, ReplicaModel
from gateway.routing.probe import describe
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica, ReplicaState

log = logging.getLogger(__name__)
Description = stage_pb2.StageDescribeResponse
PATIENCE = 1.0  # seconds that one replica may take to describe itself


@dataclass(frozen=True)
class ReplicaInfo:
    """A replica's answer."""

    description: Description | None
    """None: it was asked in vain."""
    asked_at: float
    model_of: ReplicaModel


class ReplicaRegistry:
    """Asks every replica of every stage to describe itself, every `every` seconds, and remembers the last answers, so
    that a stage which is away for a moment is still known.

    Of a part only what its replica said since it became ready counts: before, another process may have had its address.
    """

    def __init__(self, pools: Mapping[str, Pool], every: float) -> None:
        self._pools = pools
        self._every = every
        self._infos: dict[tuple[str, str], ReplicaInfo] = {}
        self._last: dict[str, Description] = {}
        self._refreshed_at = -float("inf")
        self._refreshing = asyncio.Lock()
        self._polling = asyncio.Lock()
        self._compatible = CompatibleReplicas({stage: {} for stage in MODEL_STAGES})
        self._compatible_at: tuple[int, ...] = ()
        self._polls = 0
        self._task: asyncio.Task[None] | None = None

    # -- asking ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Ask once, then go on asking in the background."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ask no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.refresh()
            except Exception:
                log.exception("while asking stages to describe themselves")

    async def refresh(self, max_age: float = 0.0) -> None:
        """Ask every replica now, unless that was begun within `max_age` seconds, or by another who waits as well."""
        wanted_at = time.monotonic()
        async with self._refreshing:
            if self._refreshed_at > wanted_at - max_age:
                return
            begun = time.monotonic()
            await asyncio.gather(*(self._poll(r) for r in self._replicas() if r.state is not ReplicaState.FAILED))
            present = {_key(replica) for replica in self._replicas()}
            self._infos = {key: said for key, said in self._infos.items() if key in present}
            for stage in self._pools:
                if ready := [d for d in self.all(stage) if d.ready]:
                    self._last[stage] = ready[0]
            self._refreshed_at = begun

    async def _poll(self, replica: Replica) -> None:
        """Ask one replica. One that is too busy to answer has not changed."""
        asked_at = time.monotonic()
        description = await _ask(replica)
        known = self._known(replica)
        if known is None or (description and known.asked_at < asked_at):
            self._infos[_key(replica)] = ReplicaInfo(description, asked_at, _model_from(description))
            self._polls += 1

    def _replicas(self) -> list[Replica]:
        return [replica for pool in self._pools.values() for replica in pool.replicas]

    def _known(self, replica: Replica) -> ReplicaInfo | None:
        said = self._infos.get(_key(replica))
        return said if said and said.asked_at >= replica.ready_since else None

    # -- what was said -----------------------------------------------------------------------------------------------

    async def compatible(self) -> CompatibleReplicas:
        """Which of the ready replicas were made for one another. A replica that was not asked since it became ready
        is asked first."""
        if self._compatible_at != self._state():
            while unknown := self._unpolled():
                async with self._polling:
                    await asyncio.gather(*(self._poll(r) for r in unknown if self._known(r) is None))
            self._compatible_at = self._state()
            self._compatible = CompatibleReplicas(
                {s: {r.address: self.model_of(r) for r in self._pools[s].ready} for s in MODEL_STAGES}
            )
        return self._compatible

    def _state(self) -> tuple[int, ...]:
        """Differs whenever the lines may."""
        return self._polls, *(self._pools[stage].changes for stage in MODEL_STAGES)

    def _unpolled(self) -> list[Replica]:
        return [r for stage in MODEL_STAGES for r in self._pools[stage].ready if self._known(r) is None]

    def model_of(self, replica: Replica) -> ReplicaModel:
        """The part of a model that the replica serves, as far as it says."""
        said = self._known(replica)
        return said.model_of if said else UNKNOWN_MODEL

    def all(self, stage: str, *, ready: bool = False) -> list[Description]:
        """What the replicas of a stage that answer said last, or those alone that take work."""
        pool = self._pools[stage]
        replicas = pool.ready if ready else [r for r in pool.replicas if r.state is not ReplicaState.FAILED]
        found = [self._infos.get(_key(replica)) for replica in replicas]
        return [said.description for said in found if said and said.description]

    def last(self, stage: str) -> Description:
        """What a ready replica of the stage said last; an empty description while none has spoken."""
        return self._last.get(stage, Description(stage=stage))

    def about(self, stage: str, replica: Replica) -> Description:
        """What the replica says; where it names no model, what its stage said last, but for the digest: another
        replica's is not its own."""
        said = self._known(replica)
        if said and said.description and said.description.HasField("model"):
            return said.description
        last = Description()
        last.CopyFrom(self.last(stage))
        last.model.ClearField("digest")
        return last


def _key(replica: Replica) -> tuple[str, str]:
    return replica.stage, replica.address


def _model_from(description: Description | None) -> ReplicaModel:
    return ReplicaModel(description.model.digest, dict(description.required_digests)) if description else UNKNOWN_MODEL


def _usable(description: Description) -> Description:
    """The description without a load or a cost that is not finite: it would pass every comparison, and no rounding."""
    for model_of in ("load", "cost"):
        if not all(map(math.isfinite, _numbers(getattr(description, model_of)))):
            log.warning("the %s that a replica of %s tells is not finite", model_of, description.stage)
            description.ClearField(model_of)
    return description


def _numbers(message: Any) -> Iterator[float]:
    for field, value in message.ListFields():
        values = value.values() if hasattr(value, "values") else value if field.is_repeated else (value,)
        yield from (number for number in values if isinstance(number, float))


async def _ask(replica: Replica) -> Description | None:
    try:
        return _usable(await describe(replica, replica.stage, PATIENCE))
    except grpc.RpcError:
        return None
    except ValueError as error:  # another's server may say what fits into no field
        log.warning("what replica %s of %s says of itself cannot be used: %s", replica.endpoint, replica.stage, error)
        return None
    except asyncio.CancelledError:  # also what a call hears whose channel is closed, as of a replica that leaves
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return None
