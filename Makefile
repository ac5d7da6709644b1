# A fresh machine needs python3 (3.11 to 3.13), make and git: every target that needs .venv makes it first.

BIN := .venv/bin
CODE := $(wildcard holdfast tests examples benchmarks)
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-all cases chaos airline soak storms dead-provider bench lint format clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

.venv/.ready: pyproject.toml constraints.txt
	@.ci/venv

demo: .venv/.ready ## fifty support sessions survive three kill -9, nothing done twice
	@$(BIN)/holdfast demo

# The tests run in two processes; the output of the second one comes at the end.
HALF := tests/unit tests/integration

test: lint ## lint, type-check and run every quick test
	@log=$$(mktemp); $(PYTEST) -m "not slow" $(HALF) > $$log 2>&1 & second=$$!; \
	$(PYTEST) -m "not slow" tests $(HALF:%=--ignore=%); first=$$?; \
	wait $$second; second=$$?; cat $$log; rm -f $$log; exit $$((first | second))

test-all: lint ## the same with the slow tests
	$(PYTEST)

cases: .venv/.ready ## every program of ../shared/cases, where that folder is present
	$(PYTEST) tests/cases

chaos: .venv/.ready ## only the crash tests, slow ones too
	$(PYTEST) tests/chaos

airline: .venv/.ready ## 100 recorded conversations under five kill -9 (needs the recordings)
	$(BIN)/python -m benchmarks.airline

soak: .venv/.ready ## 200 kill -9 of a process with 200 working sessions
	$(BIN)/python -m benchmarks.soak

dead-provider: .venv/.ready ## 300 sessions wait for a provider that is down for two minutes
	$(BIN)/python -m benchmarks.dead_provider

storms: .venv/.ready ## 200 working sessions under a store that fails in every way
	$(BIN)/python -m benchmarks.storms

bench: .venv/.ready ## every figure next to the raw limit of the same run, about 10 minutes
	$(BIN)/python -m benchmarks

lint: .venv/.ready ## ruff, import order of the packages, mypy --strict
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy --strict $(CODE)

format: .venv/.ready ## rewrite the code in the one format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean: ## remove .venv and every cache
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
