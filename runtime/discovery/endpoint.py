"""The endpoint of one replica: address, protocol and TLS name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HOST_PORT = re.compile(r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(\d{1,5})$")


@dataclass(frozen=True, order=True)
class Endpoint:
    """`address`: "host:port" or "unix:/path". `model`: "" for hart.v1; else the model's name on an Open Inference
    Protocol server. `name`: the name that its certificate must contain, if not the address's host: certificates of pods
    name a Service, not an address."""

    address: str
    model: str = ""
    name: str = field(default="", compare=False)

    @property
    def protocol(self) -> str:
        """ "grpc" for hart.v1, "oip" for the Open Inference Protocol."""
        return "oip" if self.model else "grpc"

    def __str__(self) -> str:
        return f"oip://{self.address}/{self.model}" if self.model else self.address


def parse(text: str) -> Endpoint:
    """Parse "host:port", "unix:/path" or "oip://host:port/model". Raises ValueError, which quotes the text."""
    text = text.strip()
    address, model = text, ""
    if text.startswith("oip://"):
        address, _, model = text.removeprefix("oip://").partition("/")
        if not re.fullmatch(r"[\w.-]+", model):
            raise ValueError(f"{text!r} has no model: expected oip://host:port/model")
    if not address.startswith("unix:"):
        found = _HOST_PORT.match(address)
        if not found or not 0 < int(found[2]) < 65536:
            raise ValueError(f"{text!r} is not an endpoint: expected host:port, unix:/path or oip://host:port/model")
    return Endpoint(address, model)


def parse_all(text: str) -> frozenset[Endpoint]:
    """Parse endpoints separated by commas or line ends. Text after # is a comment."""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    return frozenset(parse(part) for line in lines for part in line.split(",") if part.strip())
