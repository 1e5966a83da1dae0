"""Assembly of the generator stage: engine, scheduler, servicer."""

from hart.v1 import ar_generator_pb2_grpc, stage_pb2_grpc

from runtime.server.app import App
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import GeneratorEngine
from services.ar_generator.scale_times import ScaleTimeEstimator
from services.ar_generator.scheduler import Scheduler
from services.ar_generator.servicer import ArGeneratorServicer


def build(app: App, settings: ArGeneratorSettings) -> None:
    """Assemble the stage in `app`. Raises SettingsError."""
    engine = GeneratorEngine(settings)
    app.device_thread.is_fatal = engine.compute.is_lost
    telemetry = app.telemetry
    admission = app.admission(queue_limit=settings.max_queued_requests, capacity=engine.slots)
    scale_times = admission.estimator = ScaleTimeEstimator(engine.scales)
    scheduler = Scheduler(
        engine,
        admission=admission,
        scale_times=scale_times,
        thread=app.device_thread,
        starvation_limit=settings.max_starvation_seconds,
        metrics=telemetry.metrics,
        tracing=telemetry.tracing,
    )
    servicer = ArGeneratorServicer(app, engine, scheduler)

    async def warm_up() -> None:
        scale_times.observe_warm_up(await app.device_thread.run(engine.load))

    app.on_start(warm_up)
    app.on_stop(scheduler.close)
    app.add(ar_generator_pb2_grpc.add_ArGeneratorServicer_to_server, servicer)
    app.add(stage_pb2_grpc.add_StageServicer_to_server, servicer)
    app.add_model(servicer.oip())
    telemetry.metrics.observe_device(engine.compute)
    telemetry.metrics.observe_model(lambda: servicer.model)
    telemetry.metrics.device_memory.observe(lambda: engine.slots * engine.slot_bytes, kind="slots")
