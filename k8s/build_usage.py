"""The panels of the dashboard "use and cost": images, callers, devices, versions."""

from __future__ import annotations

from k8s.build_objectives import NOT_VALID
from k8s.grafana import AT, Panel, quantile, rate

IMAGES = f"sum(rate(hart_images_total{AT}}}[$__rate_interval]))"
PODS = f"group by (namespace, pod, stage) (hart_device_memory_bytes{AT}}})"
GPUS = f"count(DCGM_FI_DEV_GPU_UTIL * on (namespace, pod) group_left (stage) {PODS})"
GATEWAY = ',stage="gateway"'


def joined(metric: str) -> str:
    """A metric of NVIDIA's DCGM exporter, by the stage whose pod has the GPU."""
    return f"max by (stage, gpu, Hostname) ({metric} * on (namespace, pod) group_left (stage) {PODS})"


def budget_left(good: str, budget: float) -> str:
    """Share of the month's error budget that is left."""
    valid = (
        f'(sum(increase(hart_requests_total{AT}{GATEWAY},code!~"{NOT_VALID}"}}[30d]))'
        f' - sum(increase(hart_shed_total{AT}{GATEWAY},reason="caller_limit"}}[30d])))'
    )
    return f"1 - (1 - sum(increase({good}[30d])) / {valid}) / {budget:g}"


USAGE = [
    Panel(
        "Images",
        "ops",
        {"images/s": IMAGES},
        "Images drawn per second. A call draws up to eight.",
    ),
    Panel(
        "Pixels",
        "ops",
        {"pixels/s": f"sum(rate(hart_pixels_total{AT}}}[$__rate_interval]))"},
        "Pixels drawn per second: it compares models of different image sizes.",
    ),
    Panel(
        "Time to first preview",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_first_preview_duration_seconds", GATEWAY, "stage") for q in (0.5, 0.99)},
        "From a request's arrival until its first preview is sent: what a person waits before something is seen.",
    ),
    Panel(
        "Error budget left",
        "percentunit",
        {
            "availability": budget_left(f'hart_requests_total{AT}{GATEWAY},code="OK"}}', 0.005),
            "latency": budget_left(f'hart_request_duration_seconds_bucket{AT}{GATEWAY},code="OK",le="10.0"}}', 0.01),
        },
        "Of the last 30 days, by objective. Below 0 the objective is missed.",
        limits=((0.1, "green"),),
    ),
    Panel(
        "Images by caller",
        "ops",
        {"{{caller}}": f"topk(10, {rate('hart_images_total', by='caller')})"},
        "The ten callers with the most images. Callers above HART_MAX_LABELLED_CALLERS share the name other.",
    ),
    Panel(
        "Requests by caller and status",
        "reqps",
        {"{{caller}} {{code}}": f"topk(20, {rate('hart_caller_requests_total', by='caller, code')})"},
        "RESOURCE_EXHAUSTED of one caller alone: it is above its own limits.",
    ),
    Panel(
        "GPU utilisation",
        "percent",
        {"{{stage}} {{Hostname}} {{gpu}}": joined("DCGM_FI_DEV_GPU_UTIL")},
        "Of NVIDIA's DCGM exporter, scraped with honorLabels, joined by pod. Low under load: batches are small.",
    ),
    Panel(
        "GPU power",
        "watt",
        {"{{stage}} {{Hostname}} {{gpu}}": joined("DCGM_FI_DEV_POWER_USAGE")},
        "Of the DCGM exporter. Near the device's limit its clocks fall.",
    ),
    Panel(
        "Images per GPU-second",
        "ops",
        {"images": f"{IMAGES} / {GPUS}"},
        "Images drawn per second, divided by the GPUs of all stages.",
    ),
    Panel(
        "Cost per 1,000 images",
        "currencyUSD",
        {"cost": f"1000 * {GPUS} * $gpu_hour / 3600 / {IMAGES}"},
        "All GPUs of the release at the price per GPU-hour above, divided by the images that they draw.",
    ),
    Panel(
        "Processor time by pod",
        "short",
        {"{{pod}}": f"sum by (pod) (rate(process_cpu_seconds_total{AT}}}[$__rate_interval]))"},
        "Processors in use. At the container's limit the kernel slows the process down.",
    ),
    Panel(
        "Memory by pod",
        "bytes",
        {"{{pod}}": f"sum by (pod) (process_resident_memory_bytes{AT}}})"},
        "Resident memory. At the container's limit the kernel ends the process.",
    ),
    Panel(
        "Pods by version",
        "short",
        {"{{stage}} {{version}}": f"count by (stage, version) (hart_build_info{AT}}})"},
        "Versions of the program. During a rollout there are two.",
    ),
    Panel(
        "Pods by model",
        "short",
        {"{{stage}} {{model}} {{digest}}": f"count by (stage, model, digest) (hart_model_info{AT}}})"},
        "Digests of the models, as stages and gateways report them. During a rollout there are two.",
    ),
]
