"""`python -m services.ar_generator`: the generator stage."""

from runtime.server.process import run
from services.ar_generator.assembly import build
from services.ar_generator.config import ArGeneratorSettings

if __name__ == "__main__":
    run(ArGeneratorSettings, "ar_generator", build)
