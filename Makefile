# Everything a developer or a newcomer runs. Every target sets up what it needs; nothing but Python, git and make is assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.run-installed
DEV    := $(VENV)/.dev-installed

FUZZ   := $(VENV)/.fuzz-installed

# Seconds for which `make soak` fuzzes each parser.
FUZZ_SECONDS ?= 60

.PHONY: help setup demo test test-postgresql check lint types imports proto proto-check bench bench-query bench-noise bench-secagg bench-audit bench-accuracy bench-sources bench-training parity coverage-study attack-report soak fuzz clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Cohortium needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server,agent]'
	@touch $@

$(FUZZ): pyproject.toml | $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fuzz]'
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(RUN)

setup: $(DEV)  ## make .venv with everything a developer needs

demo: $(RUN)  ## four hospitals, one private answer: the main job on real patients
	$(BIN)/python examples/demo.py

test: $(DEV)  ## every test but the soak campaigns
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile

test-postgresql: $(DEV)  ## the same tests with every coordinator over PostgreSQL
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile --store postgresql

check: lint types imports proto-check  ## ruff, mypy --strict, import-linter, regenerated protos identical

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

imports: $(DEV)
	$(BIN)/lint-imports

proto: $(DEV)  ## regenerate the Python of protos/v1
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. protos/v1/*.proto

proto-check: $(DEV)
	@rm -rf build/proto && mkdir -p build/proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=build/proto --pyi_out=build/proto --grpc_python_out=build/proto protos/v1/*.proto
	@for f in build/proto/protos/v1/*; do \
	  cmp -s $$f protos/v1/$$(basename $$f) || { echo "protos/v1/$$(basename $$f) is stale: run 'make proto' and commit"; exit 1; }; done
	@echo "generated protos are up to date"

bench: bench-query bench-noise bench-secagg bench-audit  ## every benchmark; JSON in benchmarks/results

bench-query: $(DEV)  ## latency and throughput of a query, five agents
	$(BIN)/python benchmarks/query.py

bench-noise: $(DEV)  ## draws a second of the noise sampler, beside OpenDP's
	$(BIN)/python benchmarks/noise.py

bench-secagg: $(DEV)  ## masking beside AES, and rounds of 10 to 500 institutions over loopback mTLS
	$(BIN)/python benchmarks/secagg.py

bench-audit: $(DEV)  ## the audit log: appends, ten million entries, tampering, SIGKILL; about an hour
	$(BIN)/python benchmarks/audit.py

bench-training: $(DEV)  ## private training beside central DP-SGD, statsmodels, Opacus and plain averaging, some minutes
	$(BIN)/python benchmarks/training.py

bench-accuracy: $(DEV)  ## error of every statistic over a trusted curator's (OpenDP), some minutes
	$(BIN)/python benchmarks/accuracy.py

parity: $(DEV)  ## every statistic without noise, beside pandas, scipy and statsmodels on pooled data
	$(BIN)/python benchmarks/parity.py

bench-sources: $(DEV)  ## ten million rows at one institution, beside plain DuckDB
	$(BIN)/python benchmarks/sources.py

attack-report: $(DEV)  ## attack a live consortium and audit its releases; the tables of docs/attacks.md
	PYTHONPATH=tests $(BIN)/python benchmarks/attacks.py

coverage-study: $(DEV)  ## do intervals cover 95%, do tests reject 5%: 10,000 releases of each, by size and cost
	$(BIN)/python benchmarks/coverage_study.py

soak: $(DEV) fuzz  ## long campaigns
	$(BIN)/python -m pytest -m soak

fuzz: $(FUZZ)  ## atheris on everything that parses bytes of strangers
	@for target in $$($(BIN)/python fuzz/parsers.py --list); do \
	  echo "== $$target"; mkdir -p build/fuzz/$$target; \
	  $(BIN)/python fuzz/parsers.py $$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -timeout=10 \
	    -print_final_stats=1 -artifact_prefix=build/fuzz/$$target- build/fuzz/$$target || exit 1; done

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
