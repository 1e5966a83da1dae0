"""Assembly of the text encoder stage: engine, queue, servicer."""

from hart.v1 import stage_pb2_grpc, text_encoder_pb2_grpc

from runtime.server import stage
from runtime.server.app import App
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import TextEncoderEngine
from services.text_encoder.servicer import TextEncoderServicer


def build(app: App, settings: TextEncoderSettings) -> None:
    """Assemble the stage in `app`. Raises SettingsError."""
    engine = TextEncoderEngine(settings)
    app.device_thread.is_fatal = engine.compute.is_lost
    batcher = app.batcher(
        engine.run,
        queue_limit=settings.max_queued_requests,
        max_batch=settings.max_batch,
        max_wait=settings.batch_wait_timeout_seconds,
    )
    servicer = TextEncoderServicer(app, settings, engine, batcher)
    app.on_start(stage.warming(app, batcher.admission, engine.load))
    app.add(text_encoder_pb2_grpc.add_TextEncoderServicer_to_server, servicer)
    app.add(stage_pb2_grpc.add_StageServicer_to_server, servicer)
    app.add_model(servicer.oip())
    app.telemetry.metrics.cache_hits.add(0)
    app.telemetry.metrics.observe_device(engine.compute)
    app.telemetry.metrics.observe_model(lambda: servicer.model)
