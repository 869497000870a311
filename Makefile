# kovqa on a machine that has Python 3.11+ and make. Everything is installed into .venv here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test pytest test-lowest lint soak fuzz bench gpu clean

help:
	@echo "make demo   the whole journey on drawn Korean scenes (offline, CPU, some minutes)"
	@echo "make test   lint, types and all fast tests"
	@echo "make lint   lint, format, types and layers only"
	@echo "make test-lowest  the tests with the oldest libraries that pyproject.toml allows"
	@echo "make soak   all that takes minutes: kill and resume, many times; nodes, hosts and cables too"
	@echo "make fuzz N=1000  so many damaged files; CASE='…' repeats one"
	@echo "make bench  speed beside the originals"
	@echo "make gpu    what only a GPU can show: docs/gpu"

# The stamp is made last: an interrupted installation is taken up again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kovqa needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/kovqa demo --output demo
	@echo "look at demo/contact_sheet.png"

# Types take a minute of one core, in which the tests have begun.
test: $(VENV)/installed
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Outside of CI, for it installs everything once more. KEEP="torch torchvision" leaves these at constraints.txt's versions.
LOWEST := .venv-lowest
KEEP ?=
test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) tools/lowest_versions.py --keep $(KEEP) > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet --constraint $(LOWEST)/constraints.txt --editable '.[deepspeed,serve]' openai pytest pytest-xdist build hatchling
	$(LOWEST)/bin/python -m pytest -n auto --dist loadgroup --ignore tests/test_layers.py  # import-linter wants a newer rich

soak: $(VENV)/installed
	$(BIN)/python -m pytest -m soak

N ?= 1000
CASE ?=
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz $(N) $(if $(CASE),--case '$(CASE)')

# The original encoder's package pins libraries that no longer build: only its own code is fetched.
bench: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps torchscale==0.2.0
	$(BIN)/python bench/beit3_speed.py
	$(BIN)/python bench/caption_speed.py
	$(BIN)/python bench/fusion_speed.py
	$(BIN)/python bench/answering_speed.py --size tiny
	$(BIN)/python bench/answering_speed.py --size 0.5b
	$(BIN)/python bench/loader_speed.py
	$(BIN)/python bench/index_scale.py
	$(BIN)/python bench/check_images_speed.py
	$(BIN)/python bench/launch_cost.py
	$(BIN)/python bench/startup_speed.py
	$(BIN)/python -m pip install --disable-pip-version-check --quiet wikiextractor==3.1.0 mwparserfromhell==0.7.2
	$(BIN)/python bench/wiki_speed.py

# What only a GPU can show, in under three minutes on one H100; GPU_PYTHON=python3 where kovqa is not installed.
GPU_PYTHON ?= $(BIN)/python
gpu:
	$(GPU_PYTHON) -m pytest tests/gpu -m gpu -rs

clean:
	rm -rf $(VENV) $(LOWEST) demo runs
