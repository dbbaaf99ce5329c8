# Everything runs in .venv; `.ci/setup` makes it, with the Debian packages it needs, on a bare machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench setup setup-dev clean

demo: setup
	$(BIN)/python examples/demo.py

test: setup-dev
	.ci/test

lint: setup-dev
	.ci/lint

bench: setup-dev
	.ci/bench

setup:
	.ci/setup node

setup-dev:
	.ci/setup dev

clean:
	rm -rf .venv .make build dist
