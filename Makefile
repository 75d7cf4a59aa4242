PYTHON := .venv/bin/python

.PHONY: help setup run test test-compose lint fmt scale reset bench images dead-letters rebuild-outbox check-outbox

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' Makefile | expand -t 16

setup: ## what the machine lacks, the virtual environment, Kafka's jars
	@deploy/local/setup

run: setup ## everything on this machine, until Ctrl-C
	@$(PYTHON) -m deploy.local.run

test: setup ## all tests, in three processes: most of them wait for something
	@$(PYTHON) -m pytest --numprocesses 3 --no-loadscope-reorder

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

scale: setup ## GATEWAY=demo REPLICAS=3: so many dispatcher processes for that gateway, while everything runs
	@$(PYTHON) -m deploy.local.control scale $(GATEWAY) $(REPLICAS)

dead-letters: setup ## [TOPIC=…] [REASON=…]: what could not be handled, and why; REPLAY=<id> or REPLAY=all sends it back, FORCE=1 once more
	@$(PYTHON) -m deploy.dead_letters

rebuild-outbox: setup ## the outbox's messages made anew from their journal, beside the live table, and swapped; sending goes on
	@$(PYTHON) -m deploy.running_stack services.projection.rebuild

check-outbox: setup ## the outbox's messages compared with their journal, row by row; fails if any differs, and says which
	@$(PYTHON) -m deploy.running_stack services.projection.rebuild --check

reset: setup ## forget what the local stack has stored
	@$(PYTHON) -m deploy.local.reset

bench: setup ## speed on this machine; writes docs/benchmarks/ (SCENARIO=single,profile,… QUICK=1)
	@$(PYTHON) -m tests.load.bench $(SCENARIO) $(if $(QUICK),--quick)

images: setup ## the container images that docker-compose.yml names
	@$(PYTHON) -m deploy.containers.images
