PYTHON := .venv/bin/python

.PHONY: setup run test test-compose lint fmt scale reset bench images

setup: ## what the machine lacks, the virtual environment, Kafka's jars
	@deploy/local/setup

run: setup ## everything on this machine, until Ctrl-C
	@$(PYTHON) -m deploy.local.run

test: setup ## all tests
	@$(PYTHON) -m pytest

test-compose: setup ## the containers: built, started, sent through, killed, taken down; installs an engine where none runs
	@$(PYTHON) -m tests.compose.run

lint: setup ## style, types, and which room may import which
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
	.venv/bin/lint-imports

fmt: setup ## put the code into the style that lint wants
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

scale: ## GATEWAY=demo REPLICAS=3: so many dispatcher processes for that gateway, while everything runs
	@$(PYTHON) -m deploy.local.control scale $(GATEWAY) $(REPLICAS)

reset: setup ## forget what the local stack has stored
	@$(PYTHON) -m deploy.local.reset

bench: setup ## messages through the running system, timed; writes docs/benchmarks/
	@$(PYTHON) -m tests.load.bench

images: setup ## the container images that docker-compose.yml names
	@$(PYTHON) -m deploy.containers.images
