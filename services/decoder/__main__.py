"""`python -m services.decoder`: the decoder stage."""

from runtime.server.process import run
from services.decoder.assembly import build
from services.decoder.config import DecoderSettings

if __name__ == "__main__":
    run(DecoderSettings, "decoder", build)
