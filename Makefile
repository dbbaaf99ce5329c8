# Everything runs in .venv; `.ci/setup` makes it, with the Debian packages it needs, on a bare machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench crash setup setup-dev clean

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

setup:
	.ci/setup node

setup-dev:
	.ci/setup dev

clean:
	rm -rf .venv .make build dist
