SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Each process would otherwise compile all modules anew, and pytest all tests, where this is set.
unexport PYTHONDONTWRITEBYTECODE

INSTALLED := $(VENV)/.installed
PROTOS := $(wildcard protos/safelight/v1/*.proto)
STUBS := clients/python

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Create .venv with all distributions and the tools

# torch comes first and pinned: asked for loosely, pip would choose another build.
$(INSTALLED): requirements.txt requirements-dev.txt service/pyproject.toml clients/python/pyproject.toml clients/gateway/pyproject.toml settings/pyproject.toml clients/python/safelight/_version.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e $(STUBS) -e settings -e service -e clients/gateway
	touch $@

.PHONY: demo
demo: $(INSTALLED) ## Start the service, watch one generation, write demo.png
	scripts/demo

.PHONY: demo-fleet
demo-fleet: $(INSTALLED) ## Run two engines and two fronts, kill an engine at work, write demo.png
	scripts/install-ray
	PYTHONPATH=.:.ray timeout --signal INT --kill-after 10 90 scripts/demo-fleet

.PHONY: trace-demo
trace-demo: $(INSTALLED) ## Trace concurrent generations, draw them as trace.svg
	PYTHONPATH=. scripts/trace-demo

.PHONY: serve
serve: $(INSTALLED) ## Serve the embedded model on 127.0.0.1:50051
	safelight-service

.PHONY: serve-all
serve-all: $(INSTALLED) ## The same, and its HTTP gateway on 127.0.0.1:8080
	trap 'kill $$! 2>/dev/null; wait' EXIT; safelight-service & safelight-gateway

.PHONY: test
test: $(INSTALLED) ## Run the tests
	pytest --numprocesses 2 --dist loadfile

.PHONY: test-slow
test-slow: $(INSTALLED) ## Run the tests that compile, rehearse benchmarks, or wait long
	# Tests of one file, too, run side by side: a rehearsal takes as long as a file of other tests.
	pytest --numprocesses 2 --dist worksteal -m slow
	scripts/install-peft
	PYTHONPATH=.peft pytest -m peft -W ignore tests/service/engine/lora

.PHONY: test-ray
test-ray: $(INSTALLED) ## Run the tests of engines on a Ray cluster
	scripts/install-ray
	# Ray itself causes many warnings. Its processes end with pytest, however that ends.
	PYTHONPATH=.ray timeout --signal INT --kill-after 20 220 pytest -m ray -W ignore tests/service/fleet

.PHONY: test-docs
test-docs: $(INSTALLED) ## Run the commands and examples of the documentation as pasted
	scripts/in-own-network pytest -m documentation tests/documentation

.PHONY: examples
examples: $(INSTALLED) ## Build and try the examples in Go, C++, Ruby and Java that are installed
	pytest -m examples tests/examples

.PHONY: test-typescript
test-typescript: $(INSTALLED) ## Check and test the TypeScript client; installs its packages
	scripts/test-typescript

.PHONY: conformance
conformance: $(INSTALLED) ## Try the clients of all languages that are installed on the contract's vectors
	python -m clients.conformance

.PHONY: check
check: $(INSTALLED) ## Lint, types, contract, freshness of the stubs, links of the docs
	ruff check
	ruff format --check
	mypy
	buf lint
	buf format --diff --exit-code
	scripts/check-breaking
	scripts/check-stubs
	hadolint Dockerfile clients/gateway/Dockerfile
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	check-jsonschema --builtin-schema vendor.compose-spec deploy/observability/compose.yaml
	scripts/build-docs

.PHONY: check-deploy
check-deploy: $(INSTALLED) ## Install Helm, lint the chart; then `make test` tests what it renders
	scripts/install-helm
	scripts/check-deploy

.PHONY: docs
docs: $(INSTALLED) ## Build the documentation site into site/
	scripts/build-docs

.PHONY: format
format: $(INSTALLED) ## Format Python and the contract
	ruff check --fix
	ruff format
	buf format --write

.PHONY: generate
generate: $(INSTALLED) ## Regenerate the stubs from protos/, and the schema of the chart's settings
	scripts/generate-stubs $(STUBS)
	test ! -d clients/typescript/node_modules || scripts/generate-typescript-stubs clients/typescript/src/gen
	PYTHONPATH=. python -m support.deploy.schema

FUZZ_S ?= 20
.PHONY: fuzz
fuzz: $(INSTALLED) ## Send anything down the way of a request, for FUZZ_S seconds
	# Not among the tools: it is built for few platforms.
	pip install --quiet --disable-pip-version-check atheris==3.0.0
	python -m tests.service.grpc_server.fuzz_requests -max_total_time=$(FUZZ_S)

SWEEP ?= 400
.PHONY: sweep
sweep: $(INSTALLED) ## Try the schedulers of SWEEP random configurations (400)
	python -m tests.service.engine.sampling.scheduler_sweep $(SWEEP)

.PHONY: bench
bench: $(INSTALLED) ## Measure the service against the bare pipeline
	python -m benchmarks

.PHONY: bench-gpu
bench-gpu: $(INSTALLED) ## Measure on a GPU; ARGS=--rehearse tries it on the CPU
	python -m benchmarks.gpu $(ARGS)

.PHONY: bench-gpu-report
bench-gpu-report: $(INSTALLED) ## Put the figures of bench-gpu into docs/performance.md
	python -m benchmarks.gpu.report $(ARGS)

.PHONY: dist
dist: $(INSTALLED) ## Build all wheels into dist/, and try them in empty environments
	rm -rf dist
	pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist ./settings ./$(STUBS) ./service ./clients/gateway
	scripts/check-dist

.PHONY: image
image: ## Build the container images; with TORCH_INDEX_URL, on other builds of torch
	docker build --build-arg TORCH_INDEX_URL --build-arg EXTRA_PACKAGES --tag safelight .
	docker build --tag safelight-gateway --file clients/gateway/Dockerfile .

.PHONY: clean
clean: ## Remove everything that was made
	rm -rf $(VENV) build dist site .cache .mypy_cache .ruff_cache .pytest_cache demo.png trace.svg
