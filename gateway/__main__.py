"""`python -m gateway`: the front door of the cluster."""

from gateway.assembly import build
from gateway.config import GatewaySettings
from runtime.server.process import run

if __name__ == "__main__":
    run(GatewaySettings, "gateway", build)
