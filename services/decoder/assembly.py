"""Assembly of the decoder stage: engine, queue, image encoder, servicer."""

from hart.v1 import decoder_pb2_grpc, stage_pb2_grpc

from runtime.server import stage
from runtime.server.app import App
from services.decoder.config import DecoderSettings
from services.decoder.engine import DecoderEngine
from services.decoder.image_encoder import ImageEncoder
from services.decoder.servicer import DecoderServicer


def build(app: App, settings: DecoderSettings) -> None:
    """Assemble the stage in `app`. Raises SettingsError."""
    engine = DecoderEngine(settings)
    app.device_thread.is_fatal = engine.compute.is_lost
    batcher = app.batcher(
        engine.run,
        queue_limit=settings.max_queued_requests,
        max_batch=settings.max_batch,
        max_wait=settings.batch_wait_timeout_seconds,
    )
    image_encoder = ImageEncoder(
        app.stage,
        settings.encode_threads,
        settings.max_queued_requests,
        app.telemetry.metrics,
        marked=settings.mark_ai_generated,
    )
    servicer = DecoderServicer(app, settings, engine, batcher, image_encoder)
    app.on_stop(image_encoder.close)
    app.on_start(stage.warming(app, batcher.admission, engine.load))
    app.add(decoder_pb2_grpc.add_DecoderServicer_to_server, servicer)
    app.add(stage_pb2_grpc.add_StageServicer_to_server, servicer)
    app.add_model(servicer.oip())
    app.telemetry.metrics.load.observe(servicer.load)
    app.telemetry.metrics.observe_device(engine.compute)
    app.telemetry.metrics.observe_model(lambda: servicer.model)
