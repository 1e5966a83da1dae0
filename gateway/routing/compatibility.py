"""Which replicas' parts were made for one another. Knows digests, nothing of calls or of what a part does."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.errors import StageUnavailable

GENERATOR, PARTNERS = "ar_generator", ("text_encoder", "decoder")
MODEL_STAGES = (GENERATOR, *PARTNERS)
"""The stages whose parts must have been made for one another. Safety's stands alone."""


def agree(one: str, other: str) -> bool:
    """Whether two digests may meet. One that is not known, as of a foreign server's model, is taken on trust."""
    return not one or not other or one == other


@dataclass(frozen=True)
class ReplicaModel:
    """The part of a model that a replica serves."""

    digest: str = ""
    required_digests: Mapping[str, str] = field(default_factory=dict)
    """By stage, the digest of the part that it was made with."""

    def required_digest(self, stage: str) -> str:
        """The digest of its partner in a stage; "" where any will do."""
        return self.required_digests.get(stage, "")


UNKNOWN_MODEL = ReplicaModel()


class CompatibleReplicas:
    """Keeps a request on one line: a generator, and the text encoder and the decoder that its model was made with.

    While the model's version changes there may be two lines at once, or a stage whose partners have not come yet.
    `ready`: by stage, the part that each ready replica serves, by address.
    """

    def __init__(self, ready: Mapping[str, Mapping[str, ReplicaModel]]) -> None:
        self._ready = ready
        self._digests = {stage: {model_of.digest for model_of in parts.values()} for stage, parts in ready.items()}
        self._complete = [model_of for model_of in ready[GENERATOR].values() if not self._missing(model_of)]

    def text_encoder(self) -> str:
        """The digest of the text encoder to ask: that of a whole line, the more likely the more generators it has; ""
        where any will do. Raises StageUnavailable when no line is whole."""
        generators = self._ready[GENERATOR]
        if generators and not self._complete:
            first = next(iter(generators.values()))
            raise self._apart(self._missing(first), first)
        return random.choice(self._complete).required_digest("text_encoder") if self._complete else ""

    def encoders(self, digest: str) -> frozenset[str]:
        """Addresses of the text encoders that have this digest."""
        return self._with("text_encoder", digest)

    def generators(self, text_encoder: str) -> frozenset[str]:
        """Addresses of the generators which can go on from what this text encoder wrote, and be decoded. Raises
        StageUnavailable where there are others alone."""
        found = self._ready[GENERATOR]
        fitting = {
            address: model_of
            for address, model_of in found.items()
            if agree(model_of.required_digest("text_encoder"), text_encoder)
        }
        complete = frozenset(
            address
            for address, model_of in fitting.items()
            if self._has("decoder", model_of.required_digest("decoder"))
        )
        if found and not fitting:
            wanted = ", ".join(sorted({model_of.required_digest("text_encoder") for model_of in found.values()}))
            raise StageUnavailable(
                GENERATOR, f"the prompt was read by the text encoder {text_encoder}; its replicas want {wanted}"
            )
        if fitting and not complete:
            raise self._apart("decoder", next(iter(fitting.values())))
        return complete

    def decoders(self, digest: str) -> frozenset[str]:
        """Addresses of the decoders that have this digest. Raises StageUnavailable where there are others alone."""
        fitting = self._with("decoder", digest)
        if not fitting and self._ready["decoder"]:
            raise StageUnavailable(
                "decoder", f"the latent is for the decoder {digest}; its replicas are {self._named('decoder')}"
            )
        return fitting

    def _with(self, stage: str, digest: str) -> frozenset[str]:
        return frozenset(address for address, model_of in self._ready[stage].items() if agree(model_of.digest, digest))

    def _has(self, stage: str, digest: str) -> bool:
        """Whether one of the stage's replicas has this digest; also where none is ready: one may come."""
        digests = self._digests[stage]
        return not digests or not digest or digest in digests or "" in digests

    def _missing(self, generator: ReplicaModel) -> str:
        """The first stage that has replicas, none of which fits this generator; "" where there is none."""
        return next((stage for stage in PARTNERS if not self._has(stage, generator.required_digest(stage))), "")

    def _apart(self, stage: str, generator: ReplicaModel) -> StageUnavailable:
        return StageUnavailable(
            stage,
            f"the generator {generator.digest} was made with {stage} {generator.required_digest(stage)}; "
            f"its replicas are {self._named(stage)}",
        )

    def _named(self, stage: str) -> str:
        return ", ".join(sorted(self._digests[stage]))
