# Dysco on P4.   make demo | make test   do all the set-up by themselves; `make help` lists the rest.
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TARGET ?= softnic
TEST   ?=
BENCH  ?= all
export TARGET

.PHONY: help demo test check ptf verify bench p4 setup doctor clean

help:           ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: setup     ## real TCP through firewall, NAT and counter; a download whose chain changes on its way
	@$(BIN)/python -m dysco.topo.demo --target $(TARGET)

test: setup check ptf ## everything that CI runs
	@$(BIN)/pytest -n 2 --dist loadfile

check: setup    ## style, types, rooms, and that the compiled P4 is of its sources
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python p4src/build.py --check

ptf: setup $(VENV)-ptf/.ready ## packet tests of the P4 program (TARGET=bmv2, TEST=name)
	@$(BIN)/python -m ptf_tests --target $(TARGET) $(if $(TEST),--test $(TEST))

verify: setup   ## check the protocol's model exhaustively (NAME="paths: proxy")
	@$(BIN)/python -m model.verify --markdown $(if $(NAME),"$(NAME)")

bench: setup    ## measure (BENCH=NAME of docs/benchmarks.md, or all); results in out/bench
	@$(BIN)/python -m dysco.bench $(BENCH)

p4: setup       ## compile the P4 program with p4c ($P4C)
	@$(BIN)/python p4src/build.py

doctor: setup   ## what is missing on this machine, and how to get it
	@$(BIN)/dysco-ctl doctor

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/python.txt requirements/debian.txt pyproject.toml
	@tools/setup-debian
	@echo "setting up the virtual environment"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/python.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# p4runtime-shell pins a protobuf that finsy can't work with: an environment of its own.
$(VENV)-ptf/.ready: ptf_tests/requirements.txt
	@echo "setting up the environment of the packet tests"
	@test -x $(VENV)-ptf/bin/python || $(PYTHON) -m venv $(VENV)-ptf
	@$(VENV)-ptf/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

clean:          ## remove what make made
	rm -rf $(VENV) $(VENV)-ptf out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
