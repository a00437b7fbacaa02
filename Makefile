# The commands of daily work. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests at once: three for two cores, since many wait; many more make the fault tests, which have limits, crowd each other.
JOBS ?= 3
TYPED := src tests $(wildcard examples benchmarks)

# The tests start hundreds of interpreters, and each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-pythons test-server lint types cover format docs bench bench-peers faults nemesis fuzz
.PHONY: lock package sbom release-notes clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Keyed on pip: a venv that was left half-made lacks it.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements/dev.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

install: $(VENV)/.installed ## Make .venv with the package and the development tools

demo: $(VENV)/.installed-demo ## Show the queue at work: index the standard library
	$(BIN)/python -m examples.stdlib_index

test: lint types ## Run everything that must pass: ruff, mypy, pytest with coverage
	$(BIN)/python -m pytest --cov -n $(JOBS) --dist worksteal

test-pythons: install ## Run the tests that need no processes under every other CPython from 3.12 on that is found
	@JOBS=$(JOBS) bash tests/other_pythons.sh

# What asks for the server that the package brings, or for a command of Redis and Valkey 7.2 (WAITAOF).
OF_OUR_SERVER := test_acl.py test_durability.py test_server_check.py

test-server: install ## Run what talks to the server on another one: make test-server SERVER=/usr/bin/redis-server
	@test -x "$(SERVER)" || { echo "SERVER: expected the path of a server's program, got '$(SERVER)'." >&2; exit 1; }
	QUEUE_SYSTEM_TEST_SERVER=$(abspath $(SERVER)) $(BIN)/python -m pytest tests/scripts tests/flow -n $(JOBS) --dist worksteal \
		$(addprefix --ignore=tests/flow/,$(OF_OUR_SERVER)) --deselect=tests/flow/test_twins.py::test_durability_is_waited_for

lint: install ## Check style and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## Check types with mypy
	$(BIN)/mypy $(TYPED)

cover: install ## Run pytest and write the coverage report to htmlcov/
	$(BIN)/python -m pytest --cov -n $(JOBS) --dist worksteal --cov-report=html

docs: install ## Build the documentation site into build/site, every warning an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

format: install ## Format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

bench: $(VENV)/.installed-bench ## Measure this queue against the floor and write docs/benchmarks.md (a quarter of an hour)
	$(BIN)/python -m benchmarks ours
	$(BIN)/python -m benchmarks report

bench-peers: $(VENV)/.installed-bench ## Measure all peers as well, on redis-server (about an hour)
	$(BIN)/python -m benchmarks peers
	$(BIN)/python -m benchmarks report

faults: install ## Inject every fault of the matrix as often as it asks for (an hour or two); prints a table of figures
	rm -f docs/faults.md
	QUEUE_SYSTEM_FAULTS=full QUEUE_SYSTEM_FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest tests/faults --timeout=3600 -o faulthandler_timeout=3700

nemesis: install ## Play random faults and check the history: make nemesis SECONDS=600 SEED=1
	$(BIN)/python -m tests.nemesis --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

$(VENV)/.installed-fuzz: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group fuzz
	@touch $@

fuzz: $(VENV)/.installed-fuzz ## Fuzz what reads foreign bytes, guided by coverage: make fuzz SECONDS=600
	$(BIN)/python -m tests.fuzz.run -max_total_time=$(or $(SECONDS),60) -max_len=4096 -artifact_prefix=build/fuzz- build/fuzz

$(VENV)/.installed-lock: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group lock
	@touch $@

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-annotate --custom-compile-command 'make lock'

lock: $(VENV)/.installed-lock ## Write requirements/ anew: the newest versions of all tools, with their hashes
	$(LOCK) pyproject.toml --group dev --output-file requirements/dev.txt
	$(LOCK) --group release --output-file requirements/release.txt

build/venv-release/.installed: requirements/release.txt | $(BIN)/pip
	$(BIN)/python -m venv --clear build/venv-release
	build/venv-release/bin/python -m pip install --quiet --require-hashes --requirement requirements/release.txt
	@touch $@

package: build/venv-release/.installed ## Build the source archive and the wheel into dist/, and check them
	rm -rf dist
	build/venv-release/bin/python -m build
	build/venv-release/bin/twine check --strict dist/*

sbom: build/venv-release/.installed ## Write a bill of materials of the built wheel and all of its extras: build/sbom.cdx.json
	$(BIN)/python -m venv --clear --without-pip build/venv-sbom
	$(BIN)/python -m pip --python build/venv-sbom/bin/python install --quiet "$$(ls dist/*.whl)[all]"
	build/venv-release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.cdx.json build/venv-sbom

release-notes: ## Print what the changelog says of a version: make release-notes VERSION=0.1.0
	@grep -qx '__version__ = "$(VERSION)"' src/queue_system/__init__.py || { \
		echo "VERSION: expected that of src/queue_system/__init__.py, got '$(VERSION)'." >&2; exit 1; }
	@awk '/^## /{told = index($$0, "## [$(VERSION)]") == 1; next} told {print; n += NF} END {exit !n}' CHANGELOG.md || { \
		echo "CHANGELOG.md: expected a section [$(VERSION)] with an entry in it." >&2; exit 1; }

clean: ## Remove caches and build output; keeps .venv
	rm -rf .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
