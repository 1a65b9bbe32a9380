# Run `make` for the list of what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD := .build
GO_DIRS := board cmd drivers exporter hw proto

# Any Go from 1.21 on fetches the version that go.mod asks for, unless it is set
# up not to.
export GOTOOLCHAIN ?= auto

# A clone that belongs to another user is none to git, and go would fail over it.
ifneq ($(shell git rev-parse --is-inside-work-tree 2>/dev/null),true)
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
endif

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
export LISTEN ?= 127.0.0.1:19090
LOOPBACK := $(filter 127.% localhost:% [::1]:%,$(LISTEN))
run: ## set up what is missing, build, and serve a virtual device (LISTEN=[HOST:]PORT)
	$(if $(LOOPBACK)$(PASSPHRASE)$(filter 1,$(INSECURE)),,$(error LISTEN=$(LISTEN) is reachable from \
		other machines, in plaintext and without a passphrase; give PASSPHRASE=TEXT, or insist with INSECURE=1))
	@.ci/setup run
	@$(MAKE) --no-print-directory build
	@exec $(BUILD)/bin/jumplead demo --listen "$$LISTEN" $${PASSPHRASE:+--passphrase "$$PASSPHRASE"} \
		$(if $(filter 1,$(INSECURE)),--insecure)

.PHONY: test
test: ## set up what is missing, and run everything that needs no hardware
	@.ci/setup test
	@$(MAKE) --no-print-directory check-format
	@$(MAKE) --no-print-directory check-proto
	@$(MAKE) --no-print-directory cross
	go vet ./...
	go test -race -timeout 40m ./...

.PHONY: vm
PKG ?= ./...
vm: ## run in a virtual machine what asks for simulated buses and devices (PKG=./hw/... RUN=TestX VERBOSE=1)
	@.ci/setup vm
	@$(MAKE) --no-print-directory $(BUILD)/bin/vm
	$(BUILD)/bin/vm -suite -race -timeout 20m $(if $(RUN),-run '$(RUN)') $(if $(VERBOSE),-v) $(PKG)

.PHONY: build
build: $(BUILD)/bin/jumplead $(BUILD)/bin/virtualdut ## build the programs into .build/bin

$(BUILD)/bin/%: FORCE
	@mkdir -p $(@D)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ ./cmd/$*
FORCE:

ARCHES := amd64 arm64 arm/7 arm/6

.PHONY: cross
cross: ## build for every board, without cgo and below 20 MB: linux amd64, arm64, armv7, armv6; and for clients: macOS, Windows
	@for a in $(ARCHES); do \
		out=$(BUILD)/jumplead-linux-$${a/\//v}; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$${a%/*} GOARM=$$([[ $$a == */* ]] && echo $${a#*/} || true) \
			go build -trimpath -ldflags '-s -w' -o $$out ./cmd/jumplead; \
		size=$$(stat -c %s $$out); echo "$$out $$size bytes"; \
		(( size < 20000000 )) || { echo "$$out is above 20 MB"; exit 1; }; \
	done
	@for p in darwin-arm64 windows-amd64; do \
		CGO_ENABLED=0 GOOS=$${p%-*} GOARCH=$${p#*-} go build -trimpath -ldflags '-s -w' -o $(BUILD)/jumplead-$$p ./cmd/jumplead; \
	done

.PHONY: bench
bench: ## measure against the Python exporter and a bare gRPC server, and print the table
	@.ci/setup test
	go run ./cmd/jumplead/bench

.PHONY: fuzz
FUZZTIME ?= 10m
fuzz: ## run every fuzz target (FUZZTIME=10m each)
	@.ci/setup test
	@for f in $$(grep -rl --include='*_test.go' '^func Fuzz' $(GO_DIRS)); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
			echo "$$f $$t"; go test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f); \
		done; \
	done

.PHONY: proto
proto: ## generate the Go code of the .proto files anew
	go generate ./proto

.PHONY: check-format
check-format: ## fail when gofmt would change a file
	@unformatted=$$("$$(go env GOROOT)/bin/gofmt" -l $(GO_DIRS)); \
	[[ -z "$$unformatted" ]] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }

.PHONY: check-proto
check-proto: ## fail when the generated code is not that of the .proto files
	go -C proto/gen run . -check
	go -C proto/gen vet .
	go -C proto/gen test .

.PHONY: clean
clean: ## remove everything that was built
	rm -rf $(BUILD)
