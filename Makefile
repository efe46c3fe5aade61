# Each target needs nothing but Python 3.11 and make: it makes its own .venv.
.PHONY: demo test lint docs build

demo:
	@scripts/install core
	.venv/bin/foretaste demo

test:
	@scripts/install
	@scripts/test

lint:
	@scripts/install
	@scripts/lint

docs:
	@scripts/docs

build:
	@scripts/build
