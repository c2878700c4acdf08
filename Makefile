# Python 3.11 or newer with pip, and make are all it takes: the targets set up .venv themselves.
PYTHON ?= python3
# A wheel index to take torch from, such as that of its CPU builds; empty: the index that pip is set up with.
TORCH_INDEX ?=

BIN := .venv/bin
LOCK := .ci/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: serve test check format openapi bench image lock clean

serve: .venv/runtime # serve the bundled model, or the models of KANSCOPE_MODELS
	$(BIN)/kanscope serve

test: .venv/dev
	$(BIN)/python -m pytest

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m service.openapi --check

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: .venv/runtime # write openapi/openapi.json
	$(BIN)/python -m service.openapi

bench: .venv/bench
	$(BIN)/python tests/benchmarks/run.py

image:
	docker build --build-arg TORCH_INDEX=$(TORCH_INDEX) -t kanscope .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find kanmodel service tests -name __pycache__ -prune -exec rm -rf {} +

# Set-up. The stamps .venv/runtime, dev and bench say what is installed, so that a second run starts at once.
define create-venv
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(1)
endef

# Alone, so that nothing but torch is taken from its index; what torch needs comes with the rest.
install-torch = $(if $(TORCH_INDEX),$(1)/bin/python -m pip install --no-deps --index-url $(TORCH_INDEX) torch)

.venv/bin/pip:
	$(call create-venv,.venv)

.venv/runtime: pyproject.toml $(LOCK) | .venv/bin/pip
	$(call install-torch,.venv)
	$(BIN)/python -m pip install -c $(LOCK) -e .
	@touch $@

.venv/dev: pyproject.toml $(LOCK) | .venv/bin/pip
	$(call install-torch,.venv)
	$(BIN)/python -m pip install -c $(LOCK) -e '.[dev]'
	@touch .venv/runtime $@

.venv/bench: .venv/dev
	$(BIN)/python -m pip install -c $(LOCK) -e '.[dev,bench]'
	@touch .venv/runtime .venv/dev $@

# Pins the newest versions that fit together. torch and what its CUDA builds need stay free: they differ by machine.
lock:
	rm -rf build/lock
	$(call create-venv,build/lock)
	$(call install-torch,build/lock)
	build/lock/bin/python -m pip install '.[dev,bench]'
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude kanscope >build/lock/frozen.txt
	{ echo '# Written by: make lock'; grep -vE '^(torch|triton|nvidia-|cuda-)' build/lock/frozen.txt; } >$(LOCK)
	rm -rf build/lock
