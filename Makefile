# Everything runs in .venv, which the first target that needs it makes from the locked requirements.
PYTHON ?= python3
NOX = .venv/bin/python -m nox --session
CHANNEL ?= standard
export KEEP

.PHONY: help demo test lint types fmt bench golden lock clean parts images cluster cluster-down cluster-test conformance
.NOTPARALLEL:

help: ## show these targets
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/made ## gwctl with HAProxy on this machine, step by step (KEEP=1: stay up)
	@$(NOX) demo

test: .venv/made ## all checks and all tests
	@$(NOX) test

lint: .venv/made ## ruff and the import layers
	@$(NOX) lint imports

types: .venv/made ## mypy
	@$(NOX) types

fmt: .venv/made ## rewrite the sources in the project's format
	@$(NOX) fmt

bench: .venv/made ## how long a change takes to reach traffic
	@$(NOX) bench

golden: .venv/made ## rewrite the expected files of the golden tests
	@$(NOX) golden

parts: .venv/made ## only fetch and build what tests and demo need
	@.venv/bin/python -m tests.parts

images: .venv/made ## build the images, from Debian packages for want of a registry
	@$(NOX) images

cluster: .venv/made ## start a one-node Kubernetes and say how to use it (CHANNEL=experimental)
	@$(NOX) cluster -- --channel $(CHANNEL)

cluster-down: .venv/made ## stop it
	@$(NOX) cluster_down

cluster-test: .venv/made ## the tests that need a Kubernetes: that of KUBECONFIG, that of make cluster, or a new one
	@$(NOX) cluster_test -- --channel $(CHANNEL)

conformance: .venv/made ## the Gateway API's own suite, as above (ARGS="--run-test NAME --short")
	@$(NOX) conformance -- --channel $(CHANNEL) $(ARGS)

lock: .venv/made ## lock the newest versions that pyproject.toml allows
	@$(NOX) lock

clean: ## remove what the checkout made (the shared cache stays)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .nox
	find gwctl tests -name __pycache__ -prune -exec rm -rf {} +

.venv/made: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: gwctl needs Python 3.11 or newer, this is %s: make PYTHON=/path/to/python3" % sys.version.split()[0])'
	@$(PYTHON) -m tests.parts.venv .venv requirements/dev.txt
	@touch $@
