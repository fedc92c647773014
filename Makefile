# What to type; `make` alone prints it. Everything is built once, in the dev profile, except the
# benches.

CARGO ?= cargo
# More for the command behind a target: make test ARGS='inv3 -- --nocapture'
ARGS ?=
# Anything but empty, 0 or no lets the demo end by itself.
ONCE ?=

.DEFAULT_GOAL := help
.PHONY: help demo test unit check lint fmt clippy doc deny bench fuzz fuzz-smoke build network tools clean distclean

help: ## Print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: tools network ## Two people on two local PDSes write to each other (ONCE=1: ends by itself)
	@tests/network/demo.sh $(if $(filter-out 0 no,$(ONCE)),--once) $(ARGS)

test: tools network ## Run every test, on a real local network (ARGS=... goes to cargo test)
	$(CARGO) test --locked --no-fail-fast $(ARGS)

unit: ## Run every test that needs Rust alone: no network, no Node, no Python
	$(CARGO) test --locked --no-fail-fast --lib --test structure $(ARGS)
	$(CARGO) test --locked --no-fail-fast --doc

check: tools lint test ## Do what CI does: lint, then test

lint: tools fmt clippy doc deny ## Formatting, clippy, documentation and dependencies, without a warning

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

deny: ## What may stand in the dependency tree (deny.toml); advisories where their database can be had
	@.ci/deny

bench: network ## Measure; with optimisation, so it builds anew (ARGS=proof: that section only)
	$(CARGO) bench --locked --bench directory --bench mediator --bench client -- $(ARGS)

fuzz: ## Feed random bytes to every reader of foreign bytes, 10 minutes each (ARGS=frame: that one)
	@fuzz/run 600 $(ARGS)

fuzz-smoke: ## The same for 30 seconds each; needs a nightly compiler and cargo-fuzz
	@fuzz/run 30 $(ARGS)

build: ## Build the optimised binary, target/release/atcomm
	$(CARGO) build --locked --release

network: tools
	@tests/network/setup.sh
	@tests/network/dataset/judge.sh

tools:
	@.ci/tools $(if $(filter lint check,$(MAKECMDGOALS)),lint) $(if $(filter test check,$(MAKECMDGOALS)),test)

clean: ## Remove what was built
	$(CARGO) clean

distclean: clean ## Remove what was installed for the test network, too
	rm -rf tests/network/node_modules tests/network/.venv tests/network/.setup.lock tests/network/didcomm/.venv-* \
		tests/network/browser/node_modules tests/network/tap/node_modules \
		docs/examples/typescript/node_modules docs/examples/python/.venv
