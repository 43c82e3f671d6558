# make test: the environment, then every test.  make lint: what the pre-commit hooks check too.
.PHONY: setup test lint

setup:
	@recipes/setup.sh

test: setup
	.venv/bin/python -m pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	shellcheck recipes/*.sh .ci/run
