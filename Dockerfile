# syntax=docker/dockerfile:1
# The container images of the five processes.
#   docker build --build-arg PROCESS=gateway -t hart-gateway:0.1.0 .
#   docker build --build-arg PROCESS=ar-generator --build-arg VARIANT=gpu -t hart-ar-generator:0.1.0-gpu .
# PROCESS: gateway, safety, text-encoder, ar-generator, decoder. VARIANT of a stage: cpu, gpu. An unknown process or
# variant fails with a build stage that does not exist. constraints.txt pins everything that is installed, dependencies
# included; to pin the base by digest, pass --build-arg PYTHON=3.11.13-slim-bookworm@sha256:….
# SBOM: docker buildx build --sbom=true --provenance=true …, or after the build: syft scan hart-gateway:0.1.0 -o spdx-json
ARG PYTHON=3.11.13-slim-bookworm
ARG PROCESS=gateway
ARG VARIANT=cpu

FROM python:${PYTHON} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

# --- The stubs of the wire contract ---------------------------------------------------------------------------------------
FROM base AS stubs
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --quiet -c constraints.txt grpcio-tools mypy-protobuf
COPY protos ./protos
COPY client/build_stubs.py ./client/
COPY gateway/keda ./gateway/keda
RUN mkdir -p client/hart/v1 && python client/build_stubs.py

# --- Installed packages -----------------------------------------------------------------------------------------------
FROM base AS packages
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv && /opt/venv/bin/python -m pip install --quiet --upgrade "pip>=25.1,<27"
COPY pyproject.toml constraints.txt ./

FROM packages AS packages-gateway
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet -c constraints.txt --group gateway

FROM packages AS packages-stage-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch && \
    /opt/venv/bin/python -m pip install --quiet -c constraints.txt --group services --group fetch

FROM packages AS packages-stage-gpu
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --quiet -c constraints.txt --group services --group fetch

# --- Runtime images -------------------------------------------------------------------------------------------------------
FROM base AS process
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="HART cluster" \
      org.opencontainers.image.description="Text-to-image generation over gRPC: four stages behind a gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app:/app/client PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 hart && useradd --uid 10001 --gid hart --no-create-home --home-dir /tmp hart
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
EXPOSE 50051 51051 52051
ENTRYPOINT ["python", "-m", "gateway"]

FROM process AS system-cpu

# At the first start, Triton compiles each kernel's launcher with the machine's C compiler.
FROM process AS system-gpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

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

FROM image-stage AS image-safety
EXPOSE 50052 51052 52052
ENTRYPOINT ["python", "-m", "services.safety"]

FROM image-stage AS image-text-encoder
EXPOSE 50053 51053 52053
ENTRYPOINT ["python", "-m", "services.text_encoder"]

FROM image-stage AS image-ar-generator
EXPOSE 50054 51054 52054
ENTRYPOINT ["python", "-m", "services.ar_generator"]

FROM image-stage AS image-decoder
EXPOSE 50055 51055 52055
ENTRYPOINT ["python", "-m", "services.decoder"]

# hadolint ignore=DL3006
FROM image-${PROCESS} AS image
