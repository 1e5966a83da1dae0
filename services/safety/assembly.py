"""Assembly of the safety stage: engine, queue, servicer."""

from hart.v1 import safety_pb2_grpc, stage_pb2_grpc

from runtime.server import stage
from runtime.server.app import App
from services.safety.config import SafetySettings
from services.safety.engine import SafetyEngine
from services.safety.servicer import SafetyServicer


def build(app: App, settings: SafetySettings) -> None:
    """Assemble the stage in `app`. Raises SettingsError."""
    engine = SafetyEngine(settings)
    app.device_thread.is_fatal = engine.compute.is_lost
    batcher = app.batcher(
        engine.run,
        queue_limit=settings.max_queued_requests,
        max_batch=settings.max_batch,
        max_wait=settings.batch_wait_timeout_seconds,
    )
    servicer = SafetyServicer(app, settings, engine, batcher)
    app.on_start(stage.warming(app, batcher.admission, engine.load))
    app.add(safety_pb2_grpc.add_SafetyServicer_to_server, servicer)
    app.add(stage_pb2_grpc.add_StageServicer_to_server, servicer)
    app.add_model(servicer.oip())
    for policy in engine.policies.names:
        app.telemetry.metrics.verdicts.add(0, verdict="unsafe", policy=policy)
    app.telemetry.metrics.observe_device(engine.compute)
    app.telemetry.metrics.observe_model(lambda: servicer.model)
