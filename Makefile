# Run `make` for the list of what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD := .build
LISTEN ?= 127.0.0.1:19090
VIRTUAL := $(BUILD)/virtual

# Debian's Go does not fetch newer toolchains unless it is told to.
ifneq ($(shell go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p' | awk '{print ($$1 >= 25)}'),1)
export GOTOOLCHAIN := auto
endif

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## set up what is missing, build, and serve the virtual harness (LISTEN=[HOST:]PORT)
	@.ci/setup run
	@host="$(LISTEN)"; host="$${host%:*}"; [[ "$(LISTEN)" == *:* ]] || host=0.0.0.0; \
	case "$$host" in 127.*|localhost|'[::1]') ;; *) \
		if [[ -z "$(PASSPHRASE)" && "$(INSECURE)" != 1 ]]; then \
			echo "LISTEN=$(LISTEN) is reachable from other machines, in plaintext and without a passphrase." >&2; \
			echo "Give PASSPHRASE=TEXT, or insist with INSECURE=1." >&2; exit 2; \
		fi;; esac
	@$(MAKE) --no-print-directory $(BUILD)/bin/jumplead $(BUILD)/bin/virtualdut
	@$(BUILD)/bin/virtualdut --dir $(VIRTUAL) --tcp 127.0.0.1:18080 & dut=$$!; \
	trap 'kill $$dut 2>/dev/null; wait $$dut 2>/dev/null || true' EXIT; \
	for _ in $$(seq 100); do [[ -S $(VIRTUAL)/control.sock ]] && break; kill -0 $$dut; sleep 0.05; done; \
	echo; echo "The virtual harness is cmd/virtualdut/harness.yaml. With the stock client, in another terminal:"; \
	echo "  jmp shell --tls-grpc $(LISTEN) --tls-grpc-insecure$(if $(PASSPHRASE), --passphrase ...) -- j power cycle"; \
	echo "Ctrl-C ends it."; echo; \
	$(BUILD)/bin/jumplead run --exporter-config cmd/virtualdut/harness.yaml \
		--tls-grpc-listener $(LISTEN) --tls-grpc-insecure $(if $(PASSPHRASE),--passphrase "$(PASSPHRASE)")

.PHONY: test
test: ## set up what is missing, and run everything that needs no hardware
	@.ci/setup test
	@unformatted=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs gofmt -l); \
	if [[ -n "$$unformatted" ]]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	@$(MAKE) --no-print-directory check-proto cross
	go vet ./...
	go test -race -timeout 20m ./...

.PHONY: build
build: $(BUILD)/bin/jumplead $(BUILD)/bin/virtualdut ## build the programs into .build/bin

$(BUILD)/bin/%: FORCE
	@mkdir -p $(@D)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ ./cmd/$*
FORCE:

ARCHES := amd64 arm64 arm/7 arm/6

.PHONY: cross
cross: ## build for every board: linux amd64, arm64, armv7, armv6, without cgo and below 20 MB
	@for a in $(ARCHES); do \
		out=$(BUILD)/jumplead-linux-$${a/\//v}; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$${a%/*} GOARM=$$([[ $$a == */* ]] && echo $${a#*/} || true) \
			go build -trimpath -ldflags '-s -w' -o $$out ./cmd/jumplead; \
		size=$$(stat -c %s $$out); echo "$$out $$size bytes"; \
		(( size < 20000000 )) || { echo "$$out is above 20 MB"; exit 1; }; \
	done

.PHONY: bench
bench: ## measure against the Python exporter and a bare gRPC server, and print the table
	@.ci/setup test
	go run ./cmd/jumplead/bench

.PHONY: fuzz
FUZZTIME ?= 10m
fuzz: ## run every fuzz target (FUZZTIME=10m each)
	@.ci/setup test
	@git grep -hoE --untracked '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' >/dev/null; \
	for f in $$(git grep -lE '^func Fuzz' -- '*_test.go'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
			echo "$$f $$t"; go test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f); \
		done; \
	done

.PHONY: proto
proto: ## generate the Go code of the .proto files anew
	go generate ./proto

.PHONY: check-proto
check-proto: ## fail when the generated code is not that of the .proto files
	go -C proto/gen run . -check
	go -C proto/gen vet .
	go -C proto/gen test .

.PHONY: clean
clean: ## remove everything that was built
	rm -rf $(BUILD)
