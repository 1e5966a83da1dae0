"""What the stages say of themselves: kept fresh, and told to callers. Knows no request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

import grpc
from hart.v1 import images_pb2, stage_pb2

from gateway import digests, validation
from gateway.config import STAGES, GatewaySettings
from gateway.lines import LINE, Lines
from gateway.probing import describe
from gateway.validation import Served
from runtime.errors import StageUnavailable
from runtime.pool import Pool
from runtime.replica import Replica, State
from runtime.version import VERSION

log = logging.getLogger(__name__)
Description = stage_pb2.StageDescribeResponse
PATIENCE = 1.0  # seconds that one replica may take to describe itself
RECIPE_BYTES = 64 * 2**10  # an answer's share of a picture that is not pixels: the recipe and the messages around it


class Catalog:
    """Asks every replica of every stage to describe itself, every `every` seconds, and remembers the last answers, so
    that a stage which is away for a moment is still known."""

    def __init__(self, pools: Mapping[str, Pool], settings: GatewaySettings) -> None:
        self._pools = pools
        self._settings = settings
        self._every = settings.describe_seconds
        self._replicas: dict[str, dict[str, Description]] = {stage: {} for stage in pools}
        self._told_at: dict[tuple[str, str], float] = {}
        self._met_at: dict[tuple[str, str], float] = {}
        self._meeting = asyncio.Lock()
        self._last: dict[str, Description] = {}
        self._asked_at = -float("inf")
        self._asking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # -- keeping fresh -----------------------------------------------------------------------------------------------

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
        """Ask every replica now, unless that was done within `max_age` seconds."""
        async with self._asking:
            if time.monotonic() - self._asked_at < max_age:
                return
            await asyncio.gather(*(self._ask_stage(stage, pool) for stage, pool in self._pools.items()))
            self._asked_at = time.monotonic()

    async def _ask_stage(self, stage: str, pool: Pool) -> None:
        replicas = [r for r in pool.replicas if r.state is not State.FAILED]
        self._replicas[stage] = await self._told(stage, replicas)
        for times in (self._told_at, self._met_at):
            for gone in [key for key in times if key[0] == stage and key[1] not in self._replicas[stage]]:
                del times[gone]
        ready = [d for d in self._replicas[stage].values() if d.ready]
        if ready:
            self._last[stage] = ready[0]

    async def _told(self, stage: str, replicas: Sequence[Replica]) -> dict[str, Description]:
        """What these replicas say of themselves now, by address; one that is too busy to answer has not changed."""
        asked_at = time.monotonic()
        found = await asyncio.gather(*(_ask(replica, stage) for replica in replicas))
        told: dict[str, Description] = {}
        for replica, description in zip(replicas, found, strict=True):
            if description is not None:
                told[replica.address] = description
                self._told_at[stage, replica.address] = asked_at
            elif self._knows(stage, replica):
                told[replica.address] = self._replicas[stage][replica.address]
        return told

    def _knows(self, stage: str, replica: Replica) -> bool:
        """Whether what is known of the replica was said since it became ready; before, another process may have had
        its address."""
        known = replica.address in self._replicas[stage]
        return known and self._told_at[stage, replica.address] >= replica.ready_since

    async def lines(self) -> Lines:
        """Which of the ready replicas were made for one another. A replica that has not described itself since it
        became ready is asked first."""
        if self._strangers():
            async with self._meeting:
                for stage, replica in self._strangers():
                    self._met_at[stage, replica.address] = time.monotonic()
                    self._replicas[stage] |= await self._told(stage, [replica])
        return Lines({stage: self._ready(stage) for stage in LINE})

    def _strangers(self) -> list[tuple[str, Replica]]:
        # One that was asked in vain is asked again when all are.
        lately = time.monotonic() - self._every
        return [
            (stage, replica)
            for stage in LINE
            for replica in self._pools[stage].ready
            if not self._knows(stage, replica)
            and self._met_at.get((stage, replica.address), 0.0) < max(lately, replica.ready_since)
        ]

    def _ready(self, stage: str) -> dict[str, Description]:
        return {replica.address: self.of(stage, replica) for replica in self._pools[stage].ready}

    def of(self, stage: str, replica: Replica) -> Description:
        """What one replica said of itself since it became ready; an empty description where it has said nothing."""
        known = self._knows(stage, replica)
        return self._replicas[stage][replica.address] if known else Description(stage=stage)

    def about(self, stage: str, replica: Replica) -> Description:
        """The same; what its stage said last where the replica has said nothing."""
        description = self.of(stage, replica)
        return description if description.HasField("model") else self.last(stage)

    # -- the model ---------------------------------------------------------------------------------------------------

    async def require(self) -> None:
        """Return when the stages that a request depends on are known. Raises StageUnavailable naming one that is
        not."""
        wanted = ("ar_generator", "decoder")
        if any(stage not in self._last for stage in wanted):
            await self.refresh()
        for stage in wanted:
            self._known(stage)

    def _known(self, stage: str) -> Description:
        if stage not in self._last:
            raise StageUnavailable(stage, "no replica is ready")
        return self._last[stage]

    def served(self) -> Served | None:
        """What a request may ask of the model; None while it is not known."""
        if "ar_generator" not in self._last:
            return None
        return Served(self.name(), len(self.shape().scales))

    def name(self) -> str:
        """The model's name; "" while it is not known."""
        return self.identity("ar_generator").name

    def last(self, stage: str) -> Description:
        """A stage's last description; an empty one while there is none."""
        return self._last.get(stage, Description(stage=stage))

    def identity(self, stage: str) -> stage_pb2.ModelIdentity:
        """The model of a stage, as last described."""
        return self.last(stage).model

    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and the digest that pictures carry: the generator's, with the parts that it needs."""
        needs = self.last("ar_generator").needs
        digest = digests.combine(
            generator=self.identity("ar_generator").digest,
            text_encoder=needs.get("text_encoder", "") or self.identity("text_encoder").digest,
            decoder=needs.get("decoder", "") or self.identity("decoder").digest,
        )
        return stage_pb2.ModelIdentity(name=self.name(), digest=digest)

    def shape(self) -> stage_pb2.ModelShape:
        """All that the stages know of the model's shape."""
        shape = stage_pb2.ModelShape()
        for stage in STAGES:
            _complete(shape, self.last(stage).shape)
        return shape

    # -- what callers are told ---------------------------------------------------------------------------------------

    def describe(self) -> images_pb2.DescribeResponse:
        """The answer to Images.Describe. Raises StageUnavailable before the generator has described itself."""
        self._known("ar_generator")
        safety = self.last("safety")
        model = images_pb2.ModelDescription(
            model=self.model(),
            shape=self.shape(),
            example_prompts=next((d.example_prompts for d in self._last.values() if d.example_prompts), []),
        )
        return images_pb2.DescribeResponse(
            models=[model],
            limits=self._limits(model.shape),
            defaults=validation.DEFAULTS,
            formats=validation.FORMATS,
            policy_version=safety.policy_version,
            policies=safety.policies,
            version=VERSION,
        )

    def _limits(self, shape: stage_pb2.ModelShape) -> images_pb2.Limits:
        pixels = shape.height * (3 * shape.width + 1)  # an uncompressed PNG; no format is larger
        return images_pb2.Limits(
            max_prompt_characters=validation.MAX_PROMPT_CHARACTERS,
            max_images=validation.MAX_IMAGES,
            max_guidance=validation.MAX_GUIDANCE,
            max_preview_every=len(shape.scales),
            max_request_id_characters=validation.MAX_REQUEST_ID_CHARACTERS,
            max_request_bytes=self._settings.max_message_bytes,
            max_answer_bytes=validation.MAX_IMAGES * (pixels + pixels // 64 + RECIPE_BYTES),
            default_deadline_seconds=self._settings.default_deadline_seconds,
            max_deadline_seconds=self._settings.max_deadline_seconds,
        )

    def status(self) -> list[images_pb2.StageStatus]:
        """The stages of Images.Status, in the order of a request's way."""
        return [self._status(stage) for stage in STAGES]

    def total_load(self, stage: str) -> float:
        """Queued plus running cost over the capacity of one replica, summed over the replicas."""
        return sum(description.load.load for description in self._replicas[stage].values())

    def room(self, stage: str) -> int:
        """Requests that the ready replicas can hold, waiting and in work; 0 where one does not say."""
        limits = self._limits_of(stage)
        if not all(limit.concurrency for limit in limits):
            return 0
        return sum(limit.queue_limit + limit.concurrency for limit in limits)

    def slots(self, stage: str) -> int:
        """Requests that the ready replicas work on at the same time, as far as they say."""
        return sum(limit.concurrency for limit in self._limits_of(stage))

    def _limits_of(self, stage: str) -> list[stage_pb2.StageLimits]:
        ready = {r.address for r in self._pools[stage].ready}
        return [d.limits for address, d in self._replicas[stage].items() if address in ready]

    def wait(self, stage: str) -> float:
        """Seconds that a request would wait at the least busy replica, as last described."""
        return min((d.load.estimated_wait_seconds for d in self._replicas[stage].values()), default=0.0)

    def _status(self, stage: str) -> images_pb2.StageStatus:
        pool = self._pools[stage]
        ready = {r.address for r in pool.ready}
        described = [d for address, d in self._replicas[stage].items() if address in ready]
        return images_pb2.StageStatus(
            stage=stage,
            replicas=len(pool.replicas),
            ready=len(ready),
            load=_mean(d.load.load for d in described),
            queued=sum(d.load.queued for d in described),
            running=sum(d.load.running for d in described),
            model=self.identity(stage),
        )


async def _ask(replica: Replica, stage: str) -> Description | None:
    try:
        return await describe(replica, stage, PATIENCE)
    except grpc.RpcError:
        return None


def _complete(shape: stage_pb2.ModelShape, other: stage_pb2.ModelShape) -> None:
    """Fill in what `shape` does not say yet."""
    missing = stage_pb2.ModelShape()
    missing.CopyFrom(other)
    for field, _ in shape.ListFields():
        missing.ClearField(field.name)  # type: ignore[arg-type]
    shape.MergeFrom(missing)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
