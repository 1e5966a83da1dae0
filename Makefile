# Commands for people. `make picture PROMPT="a red heart"` and `make check` work on a fresh machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
CPU_TORCH := https://download.pytorch.org/whl/cpu
PROTOS := $(shell find protos -name '*.proto')
STUBS := $(VENV)/.stamp-protos
PROMPT ?= a red heart
# Verbatim: make would expand the dollar in "a $5 note".
override PROMPT := $(value PROMPT)
export PROMPT
DEMO_PORT ?= 7860
PYTEST_ARGS ?=
BAKE_ARGS ?=

.PHONY: help
help:                       ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# --- Setup ----------------------------------------------------------------------------------------------------
# Modules are compiled when they are first imported: most of what is installed never is.
PIP_INSTALL := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check
.PHONY: setup setup-run protos protos-check protos-baseline
setup: setup-run $(VENV)/.stamp-packages   ## install everything that developing needs into .venv

setup-run: $(VENV)/.stamp-run $(STUBS)     ## install what running needs into .venv

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, not {sys.version}; PYTHON=python3.12 names another")'
	@echo "making a virtual environment in $(VENV)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --upgrade pip
	@touch $@

# A machine without an NVIDIA GPU gets the smaller CPU build, from PyTorch's own index if that is reachable.
$(VENV)/.stamp-torch: $(VENV)/.stamp-venv
	@echo "installing $(TORCH)"
	@if ! command -v nvidia-smi >/dev/null && curl --silent --fail --head --max-time 5 $(CPU_TORCH)/ >/dev/null; \
	then extra="--extra-index-url $(CPU_TORCH)"; fi; $(PIP_INSTALL) $(TORCH) $$extra
	@touch $@

$(VENV)/.stamp-run: pyproject.toml constraints.txt client/pyproject.toml | $(VENV)/.stamp-torch
	@echo "installing the packages that running needs"
	@$(PIP_INSTALL) -c constraints.txt --group run -e client
	@touch $@

$(VENV)/.stamp-packages: $(VENV)/.stamp-run
	@echo "installing the packages that developing needs"
	@$(PIP_INSTALL) -c constraints.txt --group dev
	@touch $@

$(VENV)/.stamp-kernels: $(VENV)/.stamp-packages
	@echo "installing Triton, whose interpreter runs the kernels' tests"
	@$(PIP_INSTALL) -c constraints.txt --group kernels-check
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-run $(STUBS)
	@echo "installing the packages of the page"
	@$(PIP_INSTALL) -c constraints.txt --group demo
	@touch $@

protos: $(STUBS)            ## build the typed stubs of protos/

$(STUBS): $(PROTOS) client/build_stubs.py | $(VENV)/.stamp-run
	@echo "building the stubs of protos/"
	@$(BIN)/python client/build_stubs.py
	@touch $@

protos-check: setup         ## lint the contract and refuse changes that break the committed baseline
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb

protos-baseline: setup      ## commit the current contract as the new baseline
	$(BIN)/buf build protos --exclude-source-info -o protos/baseline.binpb

# --- Running -------------------------------------------------------------------------------------------------------
# Replicas: REPLICAS_SAFETY, REPLICAS_TEXT_ENCODER, REPLICAS_AR_GENERATOR, REPLICAS_DECODER. Settings: HART_<FIELD>;
# HART_PORT is the gateway's; the stages' ports follow it.
.PHONY: picture demo up down status triton
picture: setup-run          ## PROMPT="a red heart": draw it into picture.png through the cluster
	@case "$$PROMPT" in *[![:space:]]*) ;; *) echo 'PROMPT is empty: make picture PROMPT="a red heart"' >&2; exit 2;; esac
	@$(BIN)/python -m cluster run -- $(BIN)/hart generate -o picture.png -- "$$PROMPT"

demo: $(VENV)/.stamp-demo   ## the web page, http://127.0.0.1:7860 (DEMO_PORT); starts a cluster if none runs
	@$(BIN)/python -m cluster run -- $(BIN)/python -m demo --port $(DEMO_PORT)

up: setup-run               ## start the whole cluster on loopback and return when it is ready
	@$(BIN)/python -m cluster up

down:                       ## stop it
	@test ! -x $(BIN)/python || $(BIN)/python -m cluster down

status: setup-run           ## the processes and their state
	@$(BIN)/python -m cluster status

triton: setup-run           ## safety and text encoder on the Triton Inference Server, port 8001 (deploy/triton)
	@$(BIN)/python -m deploy.triton

# --- Container images -----------------------------------------------------------------------------------------------
# REGISTRY=ghcr.io/example/ BAKE_ARGS="--push" publishes them; BAKE_ARGS="cpu --set *.platform= --load" builds for here.
.PHONY: images image-locks
images:                     ## build the container images with SBOM and provenance (docker buildx)
	@docker buildx version >/dev/null 2>&1 || { echo "NOT BUILT: docker buildx is not installed here" >&2; exit 1; }
	REVISION="$$(git rev-parse HEAD)" SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
	  CREATED="$$(git log -1 --format=%cI)" docker buildx bake $(BAKE_ARGS)

image-locks: setup          ## write the hashes of what the container images install, from pyproject.toml and constraints.txt
	$(BIN)/python -m deploy.images.lock

# --- Releasing -----------------------------------------------------------------------------------------------------
.PHONY: dist release
dist: setup                 ## build the client's wheel and sdist and the chart's package into dist/, after a check of versions
	@$(BIN)/python -m deploy.release dist

release: setup              ## build dist/ and tag the commit; RELEASE_ARGS=--dry-run only prints the tag
	@$(BIN)/python -m deploy.release tag $(RELEASE_ARGS)

# --- On a GPU ------------------------------------------------------------------------------------------------------
# A borrowed machine has torch and little else: `make gpu-wheels` gathers what the cluster needs besides, for Python 3.12
# on x86-64, and `make gpu GPU_ARGS="--wheels .cache/gpu-wheels"` imports it from there.
.PHONY: gpu gpu-dry-run gpu-wheels
GPU_PYTHON := PYTHONPATH=.:client $(or $(wildcard $(BIN)/python),$(PYTHON))
GPU_WHEELS := annotated-types circus googleapis-common-protos grpcio grpcio-health-checking grpcio-reflection \
  grpcio-status isal opentelemetry-api opentelemetry-exporter-otlp-common opentelemetry-exporter-otlp-proto-common \
  opentelemetry-exporter-otlp-proto-grpc opentelemetry-exporter-prometheus opentelemetry-instrumentation \
  opentelemetry-instrumentation-grpc opentelemetry-proto opentelemetry-sdk opentelemetry-semantic-conventions \
  protobuf pydantic pydantic-core pydantic-settings python-dotenv python-rapidjson pyzmq starlette tornado tritonclient \
  typing-inspection uvicorn
gpu:                        ## tests, kernels, full-size drawing, cluster, then training on a GPU: ten minutes, resumable
	$(GPU_PYTHON) -m benchmarks.gpu $(GPU_ARGS)

gpu-dry-run:                ## the same at a toy size on a CPU
	$(GPU_PYTHON) -m benchmarks.gpu --dry-run --out .cache/gpu-dry-run $(GPU_ARGS)

gpu-wheels: setup           ## gather the wheels that a GPU's machine may lack into .cache/gpu-wheels
	rm -rf .cache/gpu-wheels
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
	  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -c constraints.txt -d .cache/gpu-wheels $(GPU_WHEELS)

# --- Checking ------------------------------------------------------------------------------------------------------
.PHONY: lint types imports audit test check check-all format
format: setup               ## format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

lint: setup protos-check    ## style, the wire contract and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) imports

imports: setup              ## import rules between the rooms
	$(BIN)/lint-imports

audit: setup                ## pins, licences and known vulnerabilities of everything installed
	$(BIN)/python -m deploy.audit

# mypy 2.4 may crash (exit code 2) where its cache is of another commit.
types: setup                ## mypy, strict
	$(BIN)/mypy --num-workers=2 || { test $$? = 2 && rm -rf .mypy_cache && $(BIN)/mypy --num-workers=2; }

test: setup                 ## the tests; PYTEST_ARGS="tests/client -k retry"
	$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: k8s-check k8s-live k8s-files
k8s-check: setup            ## the chart, its rules and the container images: helm, kubectl, schemas, checkov, promtool, hadolint
	$(BIN)/pytest tests/k8s
	$(BIN)/python -m k8s.check

k8s-live: setup             ## the chart on a real API server, by KUBECONFIG or KUBEBUILDER_ASSETS
	$(BIN)/python -m k8s.live

.PHONY: http-check
http-check: setup           ## the HTTP API by the official OpenAI packages (Node's too, where npm is), schemathesis and curl
	$(BIN)/pip install --quiet -c constraints.txt --group http-check
	$(BIN)/pytest tests/e2e/test_openai_python.py tests/e2e/test_openai_node.py tests/e2e/test_schemathesis.py \
	  tests/e2e/test_http_readme.py

.PHONY: examples-check
examples-check: setup       ## the backends in examples/ (Python; TypeScript where npm is, Go where go is) against a cluster
	HART_EXAMPLES=1 $(BIN)/pytest -rs tests/e2e/test_examples.py

.PHONY: demo-check
demo-check: setup $(VENV)/.stamp-demo ## the page in a real browser: Debian's chromium, or CHROMIUM=/path/to/one
	$(BIN)/pip install --quiet -c constraints.txt --group demo-check
	$(BIN)/pytest tests/demo tests/e2e/test_page.py

k8s-files: setup            ## build the chart's schema, objectives, dashboards and README
	$(BIN)/python -m k8s.build_schema
	$(BIN)/python -m k8s.build_objectives
	$(BIN)/python -m k8s.build_dashboards
	$(BIN)/python -m k8s.build_readme

# The lane of every change. Its parts run side by side; each prints what it has found when it ends.
check: setup                ## the short lane: lint, types, arrows, and the tests without processes, waits or checkpoints
	@$(MAKE) -j2 --output-sync=target types lint test-short

.PHONY: test-short
test-short: setup
	$(BIN)/pytest -m "not long" --numprocesses=auto --maxprocesses=2 --dist=loadfile $(PYTEST_ARGS)

# What a merge needs. Ends with the summary line of pytest. One process more than there are cores: many tests wait.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) + 1))' 2>/dev/null || echo auto)
check-all: setup $(VENV)/.stamp-kernels ## the long lane: the short one, and every test that needs no browser, engine or registry
	@$(MAKE) lint
	@$(MAKE) types
	@REQUIRE_KERNELS=$(if $(filter Linux,$(shell uname)),1) \
	  $(MAKE) test PYTEST_ARGS='--numprocesses=$(WORKERS) --dist=loadfile $(PYTEST_ARGS)'
