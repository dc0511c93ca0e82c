PHASE ?= 2
USER_ID ?= 1

-include .cache/images.env
-include .env
export PYTHON_IMAGE POSTGRES_IMAGE CA_BUNDLE
# A bundle's own; elsewhere the Compose files say.
export $(foreach name,BACKEND_IMAGE PIPELINE_IMAGE GATEWAY_IMAGE,$(if $($(name)),$(name)))
export API_JWT_AUDIENCE API_JWT_ISSUER
# Only what is set: to a profile's Jinja, an empty variable is no default.
export MART_SELECTOR $(foreach name,DBT_PROJECT_DIR DBT_PROFILES_DIR DBT_PROFILE DBT_THREADS,$(if $($(name)),$(name)))
export ROLLOUT_DIR ROLLOUT_WAIT_SECONDS ROLLOUT_PARITY_MAX_AGE_MINUTES
export COMPOSE_BAKE := false
# With it, every process compiles anew all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Containers run as whoever calls make, and as a plain user where that is root.
APP_UID ?= $(if $(filter 0,$(shell id -u)),10001,$(shell id -u))
APP_GID ?= $(if $(filter 0,$(shell id -u)),10001,$(shell id -g))
# A relative one starts at compose/, as Compose takes it.
SECRETS_HOST_DIR ?= ../secrets
override SECRETS_HOST_DIR := $(if $(filter /%,$(SECRETS_HOST_DIR)),,$(CURDIR)/compose/)$(SECRETS_HOST_DIR)
export APP_UID APP_GID SECRETS_HOST_DIR
# A dbt project of your own, built instead of the example.
ADOPTED = $(filter-out dbt,$(DBT_PROJECT_DIR))
# Where the stack without containers keeps its source, its build file and its snapshots.
STATE ?= $(CURDIR)/data/$(if $(ADOPTED),projects/$(shell basename '$(DBT_PROJECT_DIR)'),demo)

PY := .venv/bin/python
# Through COMPOSE_FILE rather than -f: with the latter Compose does not read this directory's .env.
ADOPTION = $(if $(ADOPTED),DBT_PROJECT_DIR='$(shell cd '$(DBT_PROJECT_DIR)' && pwd)' DBT_TARGET='$(DBT_TARGET)' SOURCE_REPLICAS=0)
COMPOSE = COMPOSE_FILE=compose/base.yaml:compose/phase$(PHASE).yaml $(ADOPTION) docker compose
LOCAL = PARQUET_DIR='$(STATE)/parquet' DUCKDB_PATH='$(STATE)/build.duckdb' SOURCE_DUCKDB_PATH='$(STATE)/source.duckdb' \
	$(if $(ADOPTED),$(if $(DBT_TARGET),DBT_TARGET='$(DBT_TARGET)'),DBT_TARGET=embedded) SECRETS_DIR='$(SECRETS_HOST_DIR)'
# The store of the stack that runs; without one, the demo's.
STORE = $(if $(shell $(COMPOSE) ps -q dagster-daemon 2>/dev/null),$(COMPOSE) exec -T dagster-daemon python,$(LOCAL) $(PY))
# Under the overlays of .env, if it names some; of the phases the rollout takes the one it needs.
ROLLOUT = $(if $(COMPOSE_FILE),COMPOSE_FILE='$(COMPOSE_FILE)') $(ADOPTION) $(PY) -m deploy.rollout

# Tests that read and write all images, and tests that keep two cores busy: neither beside others.
IMAGES := tests/e2e/test_images.py tests/e2e/test_bundle.py
ROLLOUT_TESTS := tests/e2e/test_rollout.py tests/e2e/test_rollout_faults.py

.DEFAULT_GOAL := help
.PHONY: help demo dbt marts token up start down logs ps clean snapshots rollback-data preflight verify promote rollback status finalize setup secrets images bundle locks fmt check lint test unit ready e2e soak chaos bench bench-quick bench-growth

help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' Makefile

##@ Without containers
demo:  ## Marts and API on this machine, on http://127.0.0.1:8000 (PORT=): the example's, or DBT_PROJECT_DIR=
	@deploy/setup.sh venv secrets
	@$(LOCAL) $(PY) -m deploy.demo

dbt:  ## Build, audit and publish one snapshot of the demo's marts, or those of DBT_PROJECT_DIR=
	@deploy/setup.sh venv
	@$(LOCAL) $(PY) -m deploy.pipeline build

marts:  ## Which relations of DBT_PROJECT_DIR are marts; builds nothing
	@deploy/setup.sh venv
	@$(LOCAL) $(PY) -m deploy.pipeline marts

token:  ## A bearer token for USER_ID=1, for the demo and the containers
	@SECRETS_DIR='$(SECRETS_HOST_DIR)' $(PY) -m backend.auth token --user-id $(USER_ID)

##@ In containers
up:  ## Start PHASE=0, 1 or 2 (default 2); returns when the API answers from real data
	@$(if $(and $(ADOPTED),$(filter 0,$(PHASE))),$(if $(LEGACY_DUCKDB_VOLUME),,echo 'Phase 0 of a project of your own is your own stack: LEGACY_DUCKDB_VOLUME names its volume, see deploy/ADOPT.md.' >&2; exit 1))
	@$(MAKE) --no-print-directory setup
	@$(if $(ADOPTED),$(MAKE) --no-print-directory marts)
	@$(MAKE) --no-print-directory images
	@$(MAKE) --no-print-directory start

start:  ## `up` of what is set up and built: from the images that the engine has, whatever is reachable
	@$(COMPOSE) up --detach --no-build --pull never --remove-orphans --wait --wait-timeout 300 gateway dagster-webserver
	@timeout 300 sh -c 'until $(PY) -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])" "$$0" 2>/dev/null; do sleep 0.2; done' "http://$$($(COMPOSE) port gateway 8000)/health/ready"
	@echo "Phase $(PHASE): API http://$$($(COMPOSE) port gateway 8000), Dagster http://$$($(COMPOSE) port dagster-webserver 3000)"

down:  ## Stop the containers, keep the data
	@$(COMPOSE) --profile '*' down --remove-orphans

logs:  ## Follow the containers' logs
	@$(COMPOSE) logs --follow --tail 100

ps:  ## The containers and their health
	@$(COMPOSE) ps --all

clean:  ## Stop the containers and delete all data, after asking
	@printf 'Delete the volumes, ./data and ./secrets? Type yes: ' && read -r answer && [ "$$answer" = yes ]
	@COMPOSE_FILE=compose/base.yaml:compose/phase1.yaml docker compose --profile '*' down --remove-orphans --volumes
	@rm -rf data secrets

##@ Data
snapshots:  ## List the snapshots
	@$(STORE) -m deploy.pipeline snapshots

rollback-data:  ## Serve SNAPSHOT=<id> again
	@$(STORE) -m deploy.pipeline rollback-data --snapshot "$(SNAPSHOT)"

##@ Rollout
preflight:  ## Check what promoting to PHASE=n needs; changes nothing
	@$(ROLLOUT) preflight --phase $(PHASE)

verify:  ## Compare the old way of building the marts with the new one; `promote` relies on it
	@$(ROLLOUT) verify

promote:  ## Move the live stack up to PHASE=n without a failed request (DRY_RUN=1 prints the plan)
	@$(ROLLOUT) promote --phase $(PHASE) $(if $(DRY_RUN),--dry-run)

rollback:  ## Move the live stack one phase down, or an interrupted move back (DRY_RUN=1)
	@$(ROLLOUT) rollback $(if $(DRY_RUN),--dry-run)

status:  ## Phase, snapshot, freshness, containers and mounts, the journal (WATCH=1 goes on)
	@$(ROLLOUT) status $(if $(WATCH),--watch)

finalize:  ## In phase 2, for good: delete the old volume and the file in it, after asking
	@$(ROLLOUT) finalize

##@ Development
setup:  ## What running and testing need: packages, secrets, engine, Compose, base images
	@deploy/setup.sh

secrets:  ## Make the secrets that are missing
	@deploy/setup.sh secrets

images:  ## Build the images; in an unpacked bundle they are there
	@$(if $(wildcard bundle),deploy/setup.sh images,$(COMPOSE) --profile '*' build --quiet)

bundle:  ## One archive, in dist/, that installs on a host without any network
	@deploy/setup.sh
	@$(MAKE) --no-print-directory images
	@$(PY) -m deploy.bundle dist

locks:  ## Resolve the versions anew after a change of pyproject.toml
	@deploy/images/lock.sh

fmt:  ## Format the code
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --quiet --fix .

check:  ## What needs no containers: lint and unit
	@deploy/setup.sh venv
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit

lint:  ## Format, lint, types, Compose and Dockerfile linters, known advisories
	@.venv/bin/ruff format --check . && .venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/hadolint -c .hadolint.yaml deploy/images/*.Dockerfile deploy/images/standin/*.Dockerfile
	@.venv/bin/compose-lint compose/base.yaml
	@$(PY) -m deploy.images.audit

# Without the flags of `make -j`: tests start a make of their own.
unit:  ## Tests without containers
	@MAKEFLAGS= $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 25 tests/chaos/test_store.py tests/unit tests/compose

ready:  ## What tests of containers need: set-up, a browser, the images of this checkout
	@deploy/setup.sh
	@deploy/setup.sh browser wrk
	@set -a && . .cache/images.env && $(PY) -m tests.e2e.images

e2e: ready  ## Tests in a browser, and against real containers
	@set -a && . .cache/images.env && $(PY) -m pytest -n 2 --durations 25 --dist loadfile --no-loadscope-reorder tests/page tests/e2e tests/chaos/e2e tests/bench $(IMAGES:%=--ignore %) $(ROLLOUT_TESTS:%=--ignore %)
	@set -a && . .cache/images.env && $(PY) -m pytest -n 2 --durations 5 --dist loadfile $(IMAGES)
	@set -a && . .cache/images.env && $(PY) -m pytest --durations 5 $(ROLLOUT_TESTS)

soak:  ## Readers, PACE=0.01 seconds between reads, against builds and rollbacks for MINUTES=10, with a report
	@deploy/setup.sh
	@set -a && . .cache/images.env && SOAK_MINUTES=$(or $(MINUTES),10) SOAK_PACE=$(or $(PACE),0.01) $(PY) -m pytest -q tests/e2e/reader/soak.py

chaos:  ## Every fault many times (FAULTS=name SEED=n narrow it), with a report
	@deploy/setup.sh
	@$(MAKE) --no-print-directory images
	@set -a && . .cache/images.env && $(PY) -m tests.chaos --only '$(FAULTS)' --seed $(or $(SEED),0)

bench:  ## How fast we serve beside what one would take instead, with a report (about an hour; BENCH= options)
	@deploy/setup.sh venv bench
	@$(PY) -m tests.bench full $(BENCH)

bench-quick:  ## Ours alone, and what changed since the baseline that SAVE=1 makes (about four minutes)
	@deploy/setup.sh venv wrk
	@$(PY) -m tests.bench quick $(if $(SAVE),--save) $(BENCH)

bench-growth:  ## From 100,000 rows to 10 million, from 10 datasets to 1,000, and what a build costs (about 25 minutes)
	@deploy/setup.sh venv bench
	@$(PY) -m tests.bench growth $(BENCH)

test:  ## Everything, end to end; sets up what it needs
	@deploy/setup.sh venv
	@$(MAKE) --no-print-directory -j 3 unit lint ready
	@$(MAKE) --no-print-directory e2e
