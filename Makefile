# All tasks of this repository. They need Go and Python 3 with pip, and fetch everything else from the package registries into
# the Go module cache and the ignored folder .tools.

SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
FUZZTIME ?= 30s
CRASH_ROUNDS ?= 200
NODES_FOR ?= 30m
IMAGE ?= tollkeeper:dev

# Modules of their own, which keep their requirements out of the program's go.mod.
MODULES := k8s/apitest k8s/image

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: build
build: ## build bin/tollkeeper
	$(GO) build -trimpath -o bin/tollkeeper ./cmd/tollkeeper

.PHONY: image
image: ## build the container image for amd64 and arm64 into bin/image (IMAGE=name:tag, VERSION=1.2.3)
	@$(GO) build -C k8s/image -o ../../bin/mkimage .
	@./bin/mkimage -name '$(IMAGE)' -version '$(VERSION)'

.PHONY: demo
demo: ## show requests through a real Envoy, then keep everything running (DEMO_ONCE=1: stop at the end)
	@echo "building the demo (the first time takes a few minutes)"
	@$(GO) build -o bin/ ./cmd/tollkeeper ./envoy/demo
	@exec ./bin/demo -tollkeeper bin/tollkeeper

.PHONY: test
test: lint policies ## lint, policies, and all tests, also through the real Envoy
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v /envoy)
	@# What passing tests say is hidden without -v.
	@echo "conformance of the evaluators of policies:"
	@set -o pipefail; $(GO) test -v -run '^Test(Cases|Conformance|DropIn|Evaluators|Decide_Generated|Shipped)' \
		./authz/rego ./authz/policy ./authz/extauthz ./policies | sed -n 's/.*conformance: /  /p'
	@# One package at a time: Envoy waits 0.3 s for an answer, and parallel tests would delay it.
	$(GO) test -timeout 10m -p 1 ./envoy/...
	@# Not from the test cache, which does not notice changes of the manifests and the program.
	@for module in $(MODULES); do $(GO) test -C $$module -count 1 -timeout 10m ./... || exit 1; done

.PHONY: test-crash
test-crash: ## kill the real server CRASH_ROUNDS times (200) under load, and check the ledger each time
	TOLLKEEPER_TEST_CRASH_ROUNDS=$(CRASH_ROUNDS) $(GO) test -count 1 -v -timeout 60m -run '^TestCrash' ./authz/crashtest ./authz/dispenser

.PHONY: test-nodes
test-nodes: ## kill four nodes and PostgreSQL under load through real Envoys for NODES_FOR (30m), and check every count
	$(GO) test -count 1 -v -timeout 2h ./envoy/nodes -nodes.for $(NODES_FOR)

.PHONY: policies
policies: ## check and test the shipped policies with stock OPA
	$(GO) tool opa fmt --fail --list policies
	$(GO) tool opa check --strict --schema policies/schema policies
	$(GO) tool opa test policies

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, go.mod
	@test -z "$$(gofmt -l authz cmd envoy k8s policies)" || { echo "not formatted:"; gofmt -l authz cmd envoy k8s policies; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@for module in $(MODULES); do (cd $$module && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool staticcheck ./...) || exit 1; done

.PHONY: bench
bench: ## compare with the rivals: checks a second, server CPU, latency, memory (BENCH=-quick: one minute, not fifteen; BENCH="-only street": one load)
	@echo "building the bench"
	@$(GO) build -trimpath -o bin/ ./cmd/tollkeeper ./envoy/bench
	@exec ./bin/bench -tollkeeper bin/tollkeeper $(BENCH)

.PHONY: stalls
stalls: build ## measure how much reloads, key writes and a slow policy delay other checks
	@$(GO) build -o bin/ ./envoy/bench
	@./bin/bench -stalls

.PHONY: microbench
microbench: ## compare OPA's evaluator with compiled programs, then run the benchmarks of single functions (BENCH='-only guarded': some rows)
	@$(GO) build -o bin/ ./envoy/bench
	@./bin/bench -evaluators $(BENCH)
	$(GO) test -run '^$$' -bench . -benchmem ./authz/... ./policies/...

.PHONY: sim
sim: ## simulate 100 million reservations with crashing nodes and failing connections
	$(GO) test -count=1 -timeout 60m -v -run Simulation ./authz/dispenser -sim.n=100000000

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built and fetched
	rm -rf bin .tools
