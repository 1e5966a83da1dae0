# syntax=docker/dockerfile:1
# The container images of the cluster: the gateway, and one for all four stages, whose argument names the stage.
#   docker build --build-arg PROCESS=gateway -t hart-gateway:0.1.0 .
#   docker build --build-arg PROCESS=stage --build-arg VARIANT=gpu -t hart-stage:0.1.0-gpu .
#   docker run hart-stage:0.1.0-gpu services.decoder
# PROCESS: gateway, stage. VARIANT of a stage: cpu, gpu. An unknown one fails with a build stage that does not exist.
# Everything that is installed has its hashes in deploy/images/*.txt (but torch of the CPU variant: PyTorch's own index).
# To pin the base by digest, pass --build-arg PYTHON=3.11.14-slim-bookworm@sha256:…. `make images` builds all of them, with
# SBOM and provenance, for amd64 and arm64 (docker-bake.hcl).
ARG PYTHON=3.11.14-slim-bookworm
ARG PROCESS=gateway
ARG VARIANT=cpu

FROM python:${PYTHON} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

# --- The stubs of the wire contract ---------------------------------------------------------------------------------------
FROM base AS stubs
COPY deploy/images/stubs.txt ./deploy/images/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --quiet --require-hashes -r deploy/images/stubs.txt
COPY protos ./protos
COPY client/build_stubs.py ./client/
COPY gateway/keda ./gateway/keda
RUN mkdir -p client/hart/v1 && python client/build_stubs.py

# --- Installed packages -----------------------------------------------------------------------------------------------
FROM base AS packages
RUN python -m venv /opt/venv

FROM packages AS packages-gateway
COPY deploy/images/gateway.txt ./deploy/images/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet --require-hashes -r deploy/images/gateway.txt

FROM packages AS packages-stage-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
COPY deploy/images/stage-cpu.txt ./deploy/images/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch && \
    /opt/venv/bin/python -m pip install --quiet --require-hashes -r deploy/images/stage-cpu.txt

FROM packages AS packages-stage-gpu
COPY deploy/images/stage-gpu.txt ./deploy/images/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet --require-hashes -r deploy/images/stage-gpu.txt

# --- Runtime images -------------------------------------------------------------------------------------------------------
FROM base AS process
ARG PYTHON
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=""
ARG URL=""
LABEL org.opencontainers.image.title="HART cluster" \
      org.opencontainers.image.description="Text-to-image generation over gRPC: four stages behind a gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${URL}" \
      org.opencontainers.image.base.name="docker.io/library/python:${PYTHON}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app:/app/client PYTHONUNBUFFERED=1
# The folder of compiled kernels: a volume keeps them for the next start.
RUN groupadd --gid 10001 hart && useradd --uid 10001 --gid hart --no-create-home --home-dir /tmp hart && \
    install --directory --owner=10001 --group=10001 /var/cache/hart
STOPSIGNAL SIGTERM

FROM process AS image-gateway
COPY --from=packages-gateway /opt/venv /opt/venv
COPY --from=stubs /app/client/hart/v1 ./client/hart/v1
COPY --from=stubs /app/gateway/keda ./gateway/keda
COPY client/hart/__init__.py ./client/hart/
COPY client/hart/v1/__init__.py ./client/hart/v1/
COPY common ./common
COPY runtime ./runtime
COPY gateway ./gateway
USER 10001:10001
EXPOSE 50051 51051 52051 53051 54051
ENTRYPOINT ["python", "-m", "gateway"]

FROM process AS system-cpu

# At the first start, Triton compiles each kernel's launcher with the machine's C compiler.
FROM process AS system-gpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRITON_CACHE_DIR=/var/cache/hart/triton TORCHINDUCTOR_CACHE_DIR=/var/cache/hart/inductor \
    CUDA_CACHE_PATH=/var/cache/hart/cuda

# hadolint ignore=DL3006
FROM packages-stage-${VARIANT} AS packages-stage

# hadolint ignore=DL3006
FROM system-${VARIANT} AS image-stage
WORKDIR /app
COPY --from=packages-stage /opt/venv /opt/venv
COPY --from=stubs /app/client/hart/v1 ./client/hart/v1
COPY client/hart/__init__.py ./client/hart/
COPY client/hart/v1/__init__.py ./client/hart/v1/
COPY checkpoints ./checkpoints
COPY common ./common
COPY runtime ./runtime
COPY kernels ./kernels
COPY model ./model
COPY services ./services
USER 10001:10001
# In the order safety, text encoder, generator, decoder: calls, metrics, health.
EXPOSE 50052 50053 50054 50055 51052 51053 51054 51055 52052 52053 52054 52055
ENTRYPOINT ["python", "-m"]

# hadolint ignore=DL3006
FROM image-${PROCESS} AS image
