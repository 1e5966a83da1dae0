"""`python -m services.safety`: the safety stage."""

from runtime.server.process import run
from services.safety.assembly import build
from services.safety.config import SafetySettings

if __name__ == "__main__":
    run(SafetySettings, "safety", build)
