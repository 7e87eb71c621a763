# make setup   virtual environment: on a CPU with everything pinned; where a GPU is present, CUDA builds of what pyproject.toml says
# make demo    the demo model, a real server, and the scenario; ONCE=1 stops at the verdict
# make serve   MODEL=<path or name> [ARGS="any vllm serve flag"]
# make test    format, lint, types, tests
# make eval    the evaluation suites and one report of them in OUT (eval-results); QUICK=1 for a look; DATA, MODELS: where those are
# make fuzz    the property tests with new examples, FUZZ (20) times as many
# make lock    resolve requirements/cpu.txt anew from pyproject.toml

SHELL := /bin/bash
PYTHON ?= python3
DEVICE ?= $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export VLLM_CPU_KVCACHE_SPACE ?= 1
# On a CPU vLLM 0.32 cannot load what it compiled ahead of time, and compiles anew at every start.
export VLLM_USE_AOT_COMPILE ?= $(if $(filter cpu,$(DEVICE)),0,1)

.PHONY: help setup demo serve eval fuzz test lint lock clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,7s/^# //p' Makefile

setup: .venv/.installed-$(DEVICE)

# Torch comes first and by pip, which takes a CPU build where the machine provides one; the rest is a full lock
# installed without resolving (see requirements/overrides.txt for why). Every process of an engine imports all of vLLM,
# which takes twice as long without bytecode, and some environments keep Python from writing it.
.venv/.installed-cpu: requirements/cpu.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps -r requirements/cpu.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

.venv/.installed-gpu: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '.[gpu,dev]'
	touch $@

demo: setup
	$(BIN)/lethe demo $(if $(ONCE),--once)

serve: setup
	$(BIN)/lethe serve $(or $(MODEL),$(error say which model: make serve MODEL=<path or name>)) $(ARGS)

test: lint
	$(BIN)/lethe demo-model build  # at most once: it is kept in the user cache
	$(BIN)/python -m pytest

DATA ?= ../shared/data
MODELS ?= ../shared/models
OUT ?= eval-results
# Further columns of the attack matrix and methods on TOFU: make eval ARGS="--guards ... --methods ...".
eval: setup
	$(BIN)/lethe eval all --out $(OUT) --data $(DATA) --models $(MODELS) $(if $(QUICK),--quick) $(ARGS)

fuzz: setup
	FUZZ=$(or $(FUZZ),20) $(BIN)/python -m pytest tests/property tests/unit/test_worker_features.py tests/unit/test_worker_parts.py

lint: setup
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy --explicit-package-bases benchmarks/*.py
	$(BIN)/mypy --explicit-package-bases benchmarks/unlearning/*.py

lock:
	$(BIN)/uv pip compile -q pyproject.toml --extra cpu --extra dev --override requirements/overrides.txt \
	  --python-version 3.11 --no-emit-find-links $(addprefix --find-links ,$(PIP_FIND_LINKS)) \
	  --custom-compile-command "make lock" --no-annotate -o requirements/cpu.txt
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements/cpu.txt

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
