# The chores of this repository. The same commands serve people and CI; what they need beyond Rust, Go, Python,
# make and gcc, tools/setup installs or names. Everything is built in one target folder with one set of features,
# so that nothing is compiled twice; caches lie in $FAIRLEAD_CACHE (default: ~/.cache/fairlead) and may be empty.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# rustup's folder, for shells that were open before it was installed.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# A failing tool tells its error chain; where each link was made is noise.
export RUST_LIB_BACKTRACE ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test soak soak-orders lint build image bench bench-operator bench-gateway crds cluster cluster-down

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: ## Two simulated systems, customers kept in step between them; ends with the facts it checked
	@tools/setup demo
	@echo "==> building fairlead (some minutes the first time)"
	@cargo build --bin fairlead
	@"$(TARGET)/debug/fairlead" demo $(ARGS)

test: lint ## Everything that CI runs; ARGS='-E "test(name)"' chooses tests
	@tools/test $(ARGS)

soak: ## A million orders under 200 deaths, then the tests of faults at their full sizes: hours; ARGS as for test
	@tools/setup test
	@tools/soak $(ARGS)

soak-orders: ## The first part of it: a million orders, 200 deaths; ARGS='--records 20000 --kills 20' for less
	@tools/setup test
	@tools/soak-orders $(ARGS)

lint: ## Formatting, clippy, licences, known vulnerabilities
	@tools/setup test
	@tools/lint

build: ## Build the release binary; the last line is its path
	@tools/setup demo
	@cargo build --release --package fairlead-cli
	@echo "$(TARGET)/release/fairlead"

image: ## Build the container image without a container engine; the last line is its archive
	@tools/setup demo
	@tools/image

bench: ## What an order costs, beside Benthos, Apache Camel and the Airbyte CDK; ARGS='--orders 100000' for less
	@tools/bench $(ARGS)

bench-operator: ## What a first load and a change to Programmed cost, and memory; ARGS='--rounds 5' for more
	@tools/bench-operator $(ARGS)

bench-gateway: ## What a request costs, beside nginx and HAProxy; ARGS='--rounds 9' for more
	@tools/bench-gateway $(ARGS)

crds: ## Generate crds/, the chart's copy and the reference pages from the types
	@tools/setup demo
	@cargo run --quiet --example generate

cluster: ## Start a local control plane that keeps running; NODE=1: with a node, so that pods run; prints its KUBECONFIG
	@tools/setup test
	@tools/cluster up $(if $(NODE),--node)

cluster-down: ## Stop it and remove every trace of it
	@tools/cluster down
