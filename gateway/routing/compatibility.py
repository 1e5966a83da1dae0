"""Which replicas' parts were made for one another. Knows digests, nothing of calls or of what a part does."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.errors import StageUnavailable

GENERATOR, PARTNERS = "ar_generator", ("text_encoder", "decoder")
LINE = (GENERATOR, *PARTNERS)
"""The stages whose parts must have been made for one another. Safety's stands alone."""


def agree(one: str, other: str) -> bool:
    """Whether two digests may meet. One that is not known, as of a foreign server's model, is taken on trust."""
    return not one or not other or one == other


@dataclass(frozen=True)
class Part:
    """The part of a model that a replica serves."""

    digest: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    """By stage, the digest of the part that it was made with."""

    def need(self, stage: str) -> str:
        """The digest of its partner in a stage; "" where any will do."""
        return self.needs.get(stage, "")


UNKNOWN = Part()


class Lines:
    """Keeps a request on one line: a generator, and the text encoder and the decoder that its model was made with.

    While the model's version changes there may be two lines at once, or a stage whose partners have not come yet.
    `ready`: by stage, the part that each ready replica serves, by address.
    """

    def __init__(self, ready: Mapping[str, Mapping[str, Part]]) -> None:
        self._ready = ready
        self._digests = {stage: {part.digest for part in parts.values()} for stage, parts in ready.items()}
        self._whole = [part for part in ready[GENERATOR].values() if not self._missing(part)]

    def text_encoder(self) -> str:
        """The digest of the text encoder to ask: that of a whole line, the more likely the more generators it has; ""
        where any will do. Raises StageUnavailable when no line is whole."""
        generators = self._ready[GENERATOR]
        if generators and not self._whole:
            first = next(iter(generators.values()))
            raise self._apart(self._missing(first), first)
        return random.choice(self._whole).need("text_encoder") if self._whole else ""

    def encoders(self, digest: str) -> frozenset[str]:
        """Addresses of the text encoders that have this digest."""
        return self._with("text_encoder", digest)

    def generators(self, text_encoder: str) -> frozenset[str]:
        """Addresses of the generators which can go on from what this text encoder wrote, and be decoded. Raises
        StageUnavailable where there are others alone."""
        found = self._ready[GENERATOR]
        fitting = {address: part for address, part in found.items() if agree(part.need("text_encoder"), text_encoder)}
        whole = frozenset(address for address, part in fitting.items() if self._has("decoder", part.need("decoder")))
        if found and not fitting:
            wanted = ", ".join(sorted({part.need("text_encoder") for part in found.values()}))
            raise StageUnavailable(
                GENERATOR, f"the prompt was read by the text encoder {text_encoder}; its replicas want {wanted}"
            )
        if fitting and not whole:
            raise self._apart("decoder", next(iter(fitting.values())))
        return whole

    def decoders(self, digest: str) -> frozenset[str]:
        """Addresses of the decoders that have this digest. Raises StageUnavailable where there are others alone."""
        fitting = self._with("decoder", digest)
        if not fitting and self._ready["decoder"]:
            raise StageUnavailable(
                "decoder", f"the latent is for the decoder {digest}; its replicas are {self._named('decoder')}"
            )
        return fitting

    def _with(self, stage: str, digest: str) -> frozenset[str]:
        return frozenset(address for address, part in self._ready[stage].items() if agree(part.digest, digest))

    def _has(self, stage: str, digest: str) -> bool:
        """Whether one of the stage's replicas has this digest; also where none is ready: one may come."""
        digests = self._digests[stage]
        return not digests or not digest or digest in digests or "" in digests

    def _missing(self, generator: Part) -> str:
        """The first stage that has replicas, none of which fits this generator; "" where there is none."""
        return next((stage for stage in PARTNERS if not self._has(stage, generator.need(stage))), "")

    def _apart(self, stage: str, generator: Part) -> StageUnavailable:
        return StageUnavailable(
            stage,
            f"the generator {generator.digest} was made with {stage} {generator.need(stage)}; "
            f"its replicas are {self._named(stage)}",
        )

    def _named(self, stage: str) -> str:
        return ", ".join(sorted(self._digests[stage]))
