"""`python -m services.text_encoder`: the text encoder stage."""

from runtime.server.process import run
from services.text_encoder.assembly import build
from services.text_encoder.config import TextEncoderSettings

if __name__ == "__main__":
    run(TextEncoderSettings, "text_encoder", build)
