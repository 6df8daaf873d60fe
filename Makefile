# Everything a person or CI does here, one target each; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Flags of every build, in one place: a flag that differed between two targets would compile everything twice.
SWIFT_FLAGS := --explicit-target-dependency-import-check=error
RELEASE_FLAGS := $(SWIFT_FLAGS) -c release --static-swift-stdlib --product fledge
FLEDGE := .build/release/fledge
SWIFT_FILES := Package.swift Sources Tests

.PHONY: help setup parquet ray build release quickstart test build-tests import-check format lint bundle sanitize fuzz clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

setup: ## Fetch libtorch and the quickstart's model (SETUP_FLAGS=--cuda for the CUDA libraries too)
	@scripts/setup $(SETUP_FLAGS)

parquet: setup ## Fetch Arrow's library and build the reader of Parquet files (the tests need it)
	@scripts/setup --parquet

ray: setup ## Install Ray into .deps/ray (the tests of runs on a cluster need it)
	@scripts/setup --ray

quickstart: release ## Train SmolLM2-135M-Instruct by GRPO on this machine
	$(FLEDGE) train recipes/quickstart.yaml
	@echo "The run's folder is runs/quickstart: see '$(FLEDGE) runs show runs/quickstart'."

build: setup ## Build for debugging
	swift build $(SWIFT_FLAGS)

release: setup ## Build .build/release/fledge, with the Swift runtime inside it
	swift build $(RELEASE_FLAGS)

build-tests: setup
	swift build --build-tests $(SWIFT_FLAGS)

# A no-op build when the tests are built: the check itself runs each time, while the build is planned.
import-check: build-tests ## Check that each target declares what it imports

# Tests that talk between processes within deadlines. All tests of a run start at once, on as many threads as there are cores, where
# those that compute for long would keep these waiting: they run first, by themselves.
TIMELY := ^ClusterTests[.]
TEST := swift test --skip-build --disable-xctest

test: parquet ray build-tests ## Run all tests (FILTER=Golden for those whose name matches)
ifdef FILTER
	$(TEST) --filter '$(FILTER)'
else
	$(TEST) --filter '$(TIMELY)'
	$(TEST) --skip '$(TIMELY)'
endif
	scripts/tests/run

format: ## Format the Swift code
	swift format --in-place --parallel --recursive $(SWIFT_FILES)

lint: ## Check the Swift code's format and style
	swift format lint --strict --parallel --recursive $(SWIFT_FILES)

bundle: release ## Make dist/: a folder to copy to a machine that has torch 2.11.0 but no Swift
	scripts/bundle $(FLEDGE)

sanitize: release ## Check the CUDA kernels under compute-sanitizer (needs a GPU and the CUDA toolkit)
	scripts/sanitize $(FLEDGE)

# TARGETS are those of `fledge-fuzz --help`; SECONDS is the shell's, so the time has a name of its own.
TARGETS := safetensors gguf tokenizer template config
FUZZ_SECONDS := 60
FUZZ_FLAGS := --corpus models

fuzz: setup ## Feed damaged files to the parsers (TARGETS="gguf" FUZZ_SECONDS=600 FUZZ_FLAGS="--seed 2")
	swift build $(SWIFT_FLAGS) -c release --product fledge-fuzz
	@for target in $(TARGETS); do .build/release/fledge-fuzz $$target --seconds $(FUZZ_SECONDS) $(FUZZ_FLAGS); done

clean: ## Remove what was built (not .deps, .cache, models or runs)
	rm -rf .build dist fuzz
