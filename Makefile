# Everything runs in .venv; `.ci/setup` makes it, with the Debian packages it needs, on a bare machine.
PYTHON ?= python3
BIN := .venv/bin

# Seeds that nobody tried, in every scenario of the simulator; `make sim SEEDS=1000`.
SEEDS ?= 20

.PHONY: demo test lint bench crash sim pictures setup setup-dev clean

demo: setup
	$(BIN)/python examples/demo.py

test: setup-dev
	.ci/test

lint: setup-dev
	.ci/lint

bench: setup-dev
	.ci/bench

crash: setup-dev
	$(BIN)/python -m tests.ledger.crash_points

sim: setup-dev
	$(BIN)/python -m potluck_netsim.sweep --seeds $(SEEDS)

pictures: setup-dev
	$(BIN)/python -m tests.tui.pictures

setup:
	.ci/setup node

setup-dev:
	.ci/setup dev

clean:
	rm -rf .venv .make build dist
