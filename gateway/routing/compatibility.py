"""Which replicas serve parts of the same checkpoint, by their digests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.errors import StageUnavailable

GENERATOR, PARTNERS = "ar_generator", ("text_encoder", "decoder")
MODEL_STAGES = (GENERATOR, *PARTNERS)
"""The stages that must serve parts of one checkpoint. The safety model is independent."""


def agree(one: str, other: str) -> bool:
    """Whether two digests are compatible. An unknown one, as of a foreign server's model, is trusted."""
    return not one or not other or one == other


@dataclass(frozen=True)
class ReplicaModel:
    """The part of a checkpoint that a replica serves."""

    digest: str = ""
    required_digests: Mapping[str, str] = field(default_factory=dict)
    """By stage, the digest of the part that it was trained with."""

    def required_digest(self, stage: str) -> str:
        """The digest that it requires of a stage; "" for any."""
        return self.required_digests.get(stage, "")


UNKNOWN_MODEL = ReplicaModel()


class CompatibleReplicas:
    """Keeps a request on one checkpoint: a generator, and the text encoder and decoder that it was trained with.

    During a rollout two checkpoints may be served at once, or a stage may lack its partners.
    `ready`: by stage, the model of each ready replica by address.
    """

    def __init__(self, ready: Mapping[str, Mapping[str, ReplicaModel]]) -> None:
        self._ready = ready
        self._digests = {stage: {model.digest for model in parts.values()} for stage, parts in ready.items()}
        self._complete = [model for model in ready[GENERATOR].values() if not self._missing(model)]

    def text_encoder(self) -> str:
        """The digest of the text encoder to call: of a complete checkpoint, weighted by its generators; "" for any.

        Raises StageUnavailable when no checkpoint is complete.
        """
        generators = self._ready[GENERATOR]
        if generators and not self._complete:
            first = next(iter(generators.values()))
            raise self._incompatible(self._missing(first), first)
        return random.choice(self._complete).required_digest("text_encoder") if self._complete else ""

    def encoders(self, digest: str) -> frozenset[str]:
        """Addresses of the text encoders that have this digest."""
        return self._matching("text_encoder", digest)

    def generators(self, text_encoder: str) -> frozenset[str]:
        """Addresses of the generators compatible with this text encoder and with a decoder.

        Raises StageUnavailable where only incompatible ones are ready.
        """
        found = self._ready[GENERATOR]
        compatible = {
            address: model
            for address, model in found.items()
            if agree(model.required_digest("text_encoder"), text_encoder)
        }
        complete = frozenset(
            address for address, model in compatible.items() if self._has("decoder", model.required_digest("decoder"))
        )
        if found and not compatible:
            wanted = ", ".join(sorted({model.required_digest("text_encoder") for model in found.values()}))
            raise StageUnavailable(
                GENERATOR,
                f"no ar_generator replica is compatible with text encoder {text_encoder} (they require {wanted})",
            )
        if compatible and not complete:
            raise self._incompatible("decoder", next(iter(compatible.values())))
        return complete

    def decoders(self, digest: str) -> frozenset[str]:
        """Addresses of the decoders with this digest. Raises StageUnavailable where only others are ready."""
        compatible = self._matching("decoder", digest)
        if not compatible and self._ready["decoder"]:
            raise StageUnavailable(
                "decoder", f"no decoder replica has the required digest {digest} (they have {self._named('decoder')})"
            )
        return compatible

    def _matching(self, stage: str, digest: str) -> frozenset[str]:
        return frozenset(address for address, model in self._ready[stage].items() if agree(model.digest, digest))

    def _has(self, stage: str, digest: str) -> bool:
        """Whether a replica of the stage has this digest. True also without a ready replica: one may become ready."""
        digests = self._digests[stage]
        return not digests or not digest or digest in digests or "" in digests

    def _missing(self, generator: ReplicaModel) -> str:
        """The first stage with ready replicas of which none is compatible with this generator; "" for none."""
        return next((stage for stage in PARTNERS if not self._has(stage, generator.required_digest(stage))), "")

    def _incompatible(self, stage: str, generator: ReplicaModel) -> StageUnavailable:
        return StageUnavailable(
            stage,
            f"generator {generator.digest} requires {stage} {generator.required_digest(stage)}; "
            f"ready replicas have {self._named(stage)}",
        )

    def _named(self, stage: str) -> str:
        return ", ".join(sorted(self._digests[stage]))
