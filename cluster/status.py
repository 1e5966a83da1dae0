"""What runs of a plan, for people."""

from __future__ import annotations

from dataclasses import replace

from cluster import record, running
from cluster.gateway_metrics import gateway_metrics
from cluster.plan import HTTP_PORT, TLS, Plan

_STATES = {True: "ready", False: "not ready", None: "not known"}


def show(plan: Plan) -> None:
    """Print each process, its port, and whether it is ready; and the stages that the operator has named."""
    manager = running.manager(plan)
    left = [] if manager else running.marked(plan)
    if not manager and not left and not plan.answers():
        print("nothing runs; `make up` starts it")
        return
    facts = record.read(plan)
    replicas = {**plan.replicas, **facts.get("replicas", {})}
    environment = {TLS: facts.get("tls", plan.environment.get(TLS, ""))}
    environment |= {HTTP_PORT: str(facts["http_port"])} if "http_port" in facts else {}
    environment |= {f"HART_{stage.upper()}": listed for stage, listed in facts.get("named", plan.named).items()}
    port = running.port_of(manager) if manager else facts.get("port", plan.port)
    started = replace(plan, port=port, replicas=replicas, environment=environment)
    for process in started.processes:
        http = f", {started.http_url}" if process.http_port else ""
        print(f"{process.name:<16} 127.0.0.1:{process.port}{http}  {_STATES[process.ready()]}")
    for stage, listed in started.named.items():
        print(f"{stage:<16} {listed}  {_STATES[gateway_metrics(started, stage)]}")
    if left:
        print("the process manager is gone: what ends is not started again; `make up` starts all of it anew")
