# Python 3.11 or newer with pip, and make are all it takes: the targets set up .venv themselves.
PYTHON ?= python3
# torch's build, by uv's name for it: cpu, all that is used here; auto, that of this machine's GPU; cu130 and the like.
# pip: whatever the index has that pip is set up with, which is mostly a build with CUDA.
TORCH ?= cpu

BIN := .venv/bin
LOCK := .ci/constraints.txt
# With hashes: what the image holds; and what builds the wheel, with uv, which installs torch.
IMAGE_LOCK := .ci/requirements.txt
BUILD_LOCK := .ci/build-requirements.txt
# With hashes: the environments of `make docs` and `make release`.
DOCS_LOCK := .ci/docs-requirements.txt
RELEASE_LOCK := .ci/release-requirements.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What one test process compiles the others read.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help serve test test-all test-all-libraries test-all-kanmodel test-all-clients test-all-service floors check format openapi vendor bench bench-quick bench-literature chart docs image image-test image-scan release package lock clean

help: # list the targets
	@awk -F ':|# ' '/^[a-z-]+:.*# / { printf "make %-11s %s\n", $$1, $$NF }' $(firstword $(MAKEFILE_LIST))

serve: .venv/runtime # install and serve the bundled model, or the models of KANSCOPE_MODELS
	$(BIN)/kanscope serve

# Three workers keep two cores busy, since what starts servers waits much. Each part of `test-all` has new ones, so
# that none grows beyond 1.1 GB. `make test` leaves out the tests marked `thorough`, and has a tenth of the generated
# cases; `test-all` has a third, and each night, with EXPLORE=1, all.
ONLY ?=
pytest := MALLOC_ARENA_MAX=1 $(BIN)/python -m pytest
parallel := $(pytest) -n 3 --no-loadscope-reorder
without = $(addprefix --ignore=tests/,$(1))
explaining := $(addprefix kanmodel/,attribution structure alternatives formula forecasts monitoring report)
test: .venv/dev .venv/clients/ready # install, and run the quick tests; ONLY=kanmodel for those of one folder
ifneq ($(ONLY),)
	$(parallel) -m "not thorough" $(addprefix tests/,$(ONLY))
else
	$(parallel) -m "not thorough" $(call without,libraries)
endif

# Tests that wait for processes run beside tests that compute. What needs both cores runs last, with nothing beside it.
# Its parts are those of a pull request, each a job.
test-all: test-all-libraries test-all-kanmodel test-all-clients test-all-service # install, and run all tests
test-all-%: export THOROUGH := 1
test-all-libraries: .venv/libraries/ready
	MALLOC_ARENA_MAX=1 .venv/libraries/bin/python -m pytest -n 3 tests/libraries
test-all-kanmodel: .venv/dev
	$(parallel) tests/kanmodel tests/service/work $(call without,$(explaining))
	$(parallel) $(addprefix tests/,$(explaining)) tests/service/batch tests/service/commands
test-all-clients: .venv/dev .venv/clients/ready
	$(parallel) $(call without,kanmodel service libraries)
test-all-service: .venv/dev
	$(parallel) -m "not thorough(alone=True)" tests/service $(call without,$(addprefix service/,work batch commands))
	$(pytest) -m "thorough(alone=True)" tests/service

# torch in its oldest version too, unless TORCH=pip.
floors: | .venv/bin/uv # run the core's quick tests with the oldest versions that pyproject.toml allows
	mkdir -p build
	rm -rf .venv/floors
	$(call create-venv,.venv/floors)
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python .venv/floors/bin/python --no-annotate --extra dev \
		pyproject.toml -o build/floors.txt
	$(call install-torch,.venv/floors,"$$(grep '^torch==' build/floors.txt)")
	sed -E -i '/$(FREE)/d' build/floors.txt
	.venv/floors/bin/python -m pip install -c build/floors.txt -e '.[dev]'
	MALLOC_ARENA_MAX=1 .venv/floors/bin/python -m pytest -n 3 -m "not thorough" tests/kanmodel

check: .venv/dev # format, lint, types, import rules, the OpenAPI document, security, the workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python .ci/stubs.py --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/benchmarks/mypy.ini
	$(BIN)/lint-imports
	$(BIN)/python -m service.document --check
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive kanmodel service
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/python .ci/audit.py

format: .venv/dev # format, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: .venv/runtime # write openapi/openapi.json
	$(BIN)/python -m service.document

chart: .venv/dev # write the Helm chart from the manifests for kustomize; kubectl renders them
	$(BIN)/python .ci/chart.py

docs: .venv/docs/ready .venv/runtime # build the site into build/docs: tutorial, how-to, reference, explanation, gallery
	rm -rf build/pictures
	$(BIN)/python -W ignore .ci/site/draw.py
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --config-file .ci/site/mkdocs.yml

VENDOR := service/explorer/vendor
MODULES := .venv/clients/node_modules
vendor: .venv/clients/ready # copy the libraries of the explorer from npm
	cp $(MODULES)/d3/dist/d3.min.js $(MODULES)/@observablehq/plot/dist/plot.umd.min.js $(VENDOR)
	cp $(MODULES)/preact/dist/preact.mjs $(MODULES)/htm/dist/htm.mjs $(VENDOR)
	cp $(MODULES)/preact/hooks/dist/hooks.mjs $(VENDOR)/preact-hooks.mjs
	cp $(MODULES)/@preact/signals/dist/signals.mjs $(VENDOR)/preact-signals.mjs
	cp $(MODULES)/@preact/signals-core/dist/signals-core.mjs $(VENDOR)/preact-signals-core.mjs
	for part in core dom; do \
		cp $(MODULES)/@floating-ui/$$part/dist/floating-ui.$$part.browser.min.mjs $(VENDOR)/floating-ui-$$part.mjs; done
	for name in d3 htm preact; do cp $(MODULES)/$$name/LICENSE $(VENDOR)/$$name.LICENSE; done
	cp $(MODULES)/@observablehq/plot/LICENSE $(VENDOR)/plot.LICENSE
	cp $(MODULES)/@preact/signals/LICENSE $(VENDOR)/preact-signals.LICENSE
	cp $(MODULES)/@floating-ui/dom/LICENSE $(VENDOR)/floating-ui.LICENSE
	cd $(VENDOR) && sha256sum *.js *.mjs *.LICENSE >SHA256SUMS

bench: .venv/bench .venv/peers/ready # print the benchmark tables; wrk is the client if installed
	$(BIN)/python tests/benchmarks/run.py

bench-quick: .venv/bench # print what a forecast and an explanation cost beside the last release, in three minutes
	$(BIN)/python tests/benchmarks/quick.py

bench-literature: .venv/dev .venv/bench # attributions on the sets of the papers, in about half an hour
	$(BIN)/python tests/benchmarks/literature/attributions.py

IMAGE ?= kanscope
IMAGE_OPTIONS ?=
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image: # build the container image with Docker; IMAGE_OPTIONS=--push, with IMAGE, publishes it
	docker build --build-arg TORCH=$(TORCH) --build-arg VERSION=$(version) --build-arg REVISION=$$(git rev-parse HEAD) \
		$(IMAGE_OPTIONS) -t $(IMAGE):latest -t $(IMAGE):$(version) .

image-test: # build the image without Docker, and test it
	TORCH=$(TORCH) tests/image/test.sh

image-scan: # look for known holes of Debian's packages in the image that `make image` has built
	mkdir -p build
	container=$$(docker create $(IMAGE):$(version)) && docker cp "$$container":/var/lib/dpkg/status build/dpkg-status && \
		docker rm "$$container" && tests/image/scan.sh build/dpkg-status

release: .venv/bin/uv # VERSION=x.y.z: its number, changelog, commit and tag; then the package, and the image if Docker runs
	$(BIN)/python .ci/release.py '$(VERSION)'
	$(MAKE) package
	if docker info >/dev/null 2>&1; then $(MAKE) image; else echo "no image: no Docker daemon runs here"; fi
	$(BIN)/python .ci/release.py next

# The list is of what an environment holds that has nothing but the wheel and its locked dependencies.
package: .venv/release/ready # build wheel, sdist and a list of what the wheel needs (SBOM, CycloneDX) into dist
	rm -rf dist build/package
	$(BIN)/python -m hatchling build -d dist
	$(PYTHON) -m venv --without-pip build/package
	$(call install-torch,build/package)
	$(BIN)/python -m pip --python build/package/bin/python install --require-hashes --no-deps -r $(IMAGE_LOCK)
	$(BIN)/python -m pip --python build/package/bin/python install torch dist/*.whl
	build/package/bin/kanscope --version
	.venv/release/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file dist/kanscope-$(version).cdx.json build/package/bin/python

clean: # delete .venv and what tools have written
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find kanmodel service tests -name __pycache__ -prune -exec rm -rf {} +

# Set-up. The stamps .venv/runtime, dev and bench say what is installed, so that a second run starts at once.
define create-venv
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(1)
endef

# torch alone, by uv, which knows where PyTorch has its builds; what it needs comes with the rest. Where they can't be
# reached, as behind a mirror of pip's index, pip takes torch with the rest.
install-torch = test $(TORCH) = pip || \
	$(BIN)/uv pip install --python $(1)/bin/python --no-deps --torch-backend $(TORCH) $(or $(2),torch) || \
	echo "torch's build $(TORCH) is not to be had: pip takes the one of its index, mostly with 4 GB of CUDA"

.venv/bin/uv: $(BUILD_LOCK)
	$(call create-venv,.venv)
	$(BIN)/python -m pip install --require-hashes --no-deps -r $(BUILD_LOCK)
	@touch $@

.venv/runtime: pyproject.toml $(LOCK) | .venv/bin/uv
	$(call install-torch,.venv)
	$(BIN)/python -m pip install -c $(LOCK) -e '.[all]'
	@touch $@

.venv/dev: pyproject.toml $(LOCK) | .venv/bin/uv
	$(call install-torch,.venv)
	$(BIN)/python -m pip install -c $(LOCK) -e '.[dev]'
	@touch .venv/runtime $@

# Generators of clients, and what the clients need; the tests of TypeScript are skipped where there is no npm.
CLIENTS := tests/clients
.venv/clients/ready: $(addprefix $(CLIENTS)/,requirements.txt package.json package-lock.json) | .venv/bin/uv
	$(call create-venv,.venv/clients)
	.venv/clients/bin/python -m pip install --require-hashes --no-deps -r $(CLIENTS)/requirements.txt
	cp $(CLIENTS)/package*.json .venv/clients
	if command -v npm >/dev/null; then npm ci --prefix .venv/clients --ignore-scripts --no-audit --no-fund; fi
	@touch $@

# The forecasting libraries whose fitted objects are read. All else, torch above all, is that of .venv.
LIBRARIES := tests/libraries
.venv/libraries/ready: $(LIBRARIES)/requirements.txt .venv/dev
	$(call create-venv,.venv/libraries)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(.venv/libraries/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dev.pth"
	.venv/libraries/bin/python -m pip install --require-hashes --no-deps -r $(LIBRARIES)/requirements.txt
	@touch $@

.venv/docs/ready: $(DOCS_LOCK) | .venv/bin/uv
	$(call create-venv,.venv/docs)
	.venv/docs/bin/python -m pip install --require-hashes --no-deps -r $(DOCS_LOCK)
	@touch $@

.venv/release/ready: $(RELEASE_LOCK) | .venv/bin/uv
	$(call create-venv,.venv/release)
	.venv/release/bin/python -m pip install --require-hashes --no-deps -r $(RELEASE_LOCK)
	@touch $@

.venv/bench: .venv/dev
	$(BIN)/python -m pip install -c $(LOCK) -e '.[dev,bench]'
	@touch .venv/runtime .venv/dev $@

# The servers that are measured beside ours; without them their rows are missing.
BENCHMARKS := tests/benchmarks
.venv/peers/ready: $(BENCHMARKS)/requirements.txt | .venv/bin/uv
	$(call create-venv,.venv/peers)
	$(call install-torch,.venv/peers)
	.venv/peers/bin/python -m pip install --require-hashes --no-deps -r $(BENCHMARKS)/requirements.txt
	.venv/peers/bin/python -m pip install torch
	@touch $@

# Pins what pyproject.toml asks for, on every Python and platform. What is pinned stays, unless UPGRADE=--upgrade asks for
# the newest versions. torch and what its CUDA builds need stay free: they differ by machine. So does pip.
UPGRADE ?=
FREE := ^(torch==|triton|nvidia-|cuda-|pip==)
compile = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate $(UPGRADE) \
	--custom-compile-command 'make lock'

lock: # pin the dependencies; UPGRADE=--upgrade takes the newest versions
	rm -rf build/lock
	$(call create-venv,build/lock)
	build/lock/bin/python -m pip install uv
	$(compile) pyproject.toml --all-extras -o $(LOCK)
	sed -E -i.all '/$(FREE)/d' $(LOCK)
	$(compile) pyproject.toml --extra all --extra s3 --extra https --extra otel --extra mlflow --extra signatures -c $(LOCK) --generate-hashes -o $(IMAGE_LOCK)
	sed -E -i.all '/$(FREE)/,/[^\\]$$/d' $(IMAGE_LOCK)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], "uv", sep="\n")' | \
		$(compile) - --generate-hashes -o $(BUILD_LOCK)
	$(compile) --group docs --generate-hashes -o $(DOCS_LOCK)
	$(compile) --group release --generate-hashes -o $(RELEASE_LOCK)
	$(compile) $(CLIENTS)/requirements.in --generate-hashes -o $(CLIENTS)/requirements.txt
	$(compile) $(LIBRARIES)/requirements.in --generate-hashes -o $(LIBRARIES)/requirements.txt
	sed -E -i '/$(FREE)/,/[^\\]$$/d' $(LIBRARIES)/requirements.txt
	$(compile) $(BENCHMARKS)/requirements.in --generate-hashes -o $(BENCHMARKS)/requirements.txt
	sed -E -i '/$(FREE)/,/[^\\]$$/d' $(BENCHMARKS)/requirements.txt
	rm -rf build/lock $(LOCK).all $(IMAGE_LOCK).all
