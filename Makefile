# Developers' commands. `make test` runs the same steps as CI; each step is a target of its own.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

TOOLS := $(CURDIR)/.cache/bin
export PATH := $(TOOLS):$(PATH)
# The flags of the released binary, for all that is compiled: with others each package would be compiled once more.
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath

# Packages whose tests start a broker: the same tests run on the embedded broker and on Apache Kafka. They are found by
# their imports. e2e runs the binary and has targets of its own.
with_broker = go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... \
	| awk '$$1 != "tidemark/e2e" && /tidemark\/devbroker( |$$)/ { print $$1 }'
# Packages whose tests use an OpenSearch or an S3 server, if there is one.
with_server := tidemark/sinks/archive tidemark/sinks/search
alone = comm -23 <(go list ./... ./.ci/results | grep -v '^tidemark/e2e$$' | sort) \
	<(($(with_broker); printf '%s\n' $(with_server)) | sort)

##@ Main targets

# A test that can run on both brokers runs on Apache Kafka, if that is available. The embedded broker then has the tests
# of its own package, those of `tidemark dev`, and the rest of e2e.
.PHONY: test
test: ## all that CI runs, about 20 minutes; prints the result and duration of each step, and what failed
	@if deploy/kafka/kafka.sh jars >/dev/null; then \
		export ON_KAFKA='|^Test(FolderWalk|Zombie|Recipe.*)$$|^TestInstances$$/^share$$'; \
		dev=+dev integration=integration-kafka; \
	else dev= integration=integration; fi; \
	.ci/steps tools generated proto lint+unit+page-test$$dev $$integration+generator e2e e2e-kafka faults-short

.PHONY: build
build: ## the binary, in bin/
	CGO_ENABLED=0 go build -trimpath -o bin/tidemark ./cmd/tidemark

.PHONY: generate
generate: tools ## generate the code from proto/
	cd proto && buf generate

.PHONY: page
page: ## build the page of web/; needs npm
	@.ci/page build

.PHONY: fmt
fmt: tools ## format the code
	golangci-lint fmt

##@ Steps of `make test`

.PHONY: tools
tools: ## install the pinned tools into .cache/bin
	@.ci/tools

.PHONY: lint
lint: tools ## style, formatting and allowed imports
	golangci-lint run --allow-parallel-runners ./... ./.ci/results
	go mod tidy -diff

.PHONY: generated
generated: tools ## checks that the committed code is what proto/ generates
	@.ci/generated

.PHONY: proto
proto: tools ## style of the record definitions
	cd proto && buf lint

.PHONY: unit
unit: tools ## tests that need no broker and no other server
	@.ci/gotest unit "$$($(alone))"

.PHONY: integration
integration: tools ## tests on the embedded broker; part of `make test` only where Apache Kafka is not available
	@KAFKA_BROKERS= KAFKA_SASL_BROKERS= .ci/gotest integration "$$($(with_broker)) $(with_server)" -parallel 4

.PHONY: dev
dev: tools ## tests of `tidemark dev` on the embedded broker; a part of `make integration`
	@KAFKA_BROKERS= .ci/gotest dev ./cmd/tidemark -run '^Test(Dev.*|Event|ThePast.*)$$'

.PHONY: integration-kafka
integration-kafka: tools ## the same tests on Apache Kafka
	@NO_SKIP=1 .ci/kafka .ci/gotest integration-kafka "$$($(with_broker))" -parallel 4

.PHONY: generator
generator: ## install the generator of Go clients, for e2e
	@nice .ci/tools generator

.PHONY: e2e
e2e: tools generator ## the binary as users and other clients use it; crash test and its controls, short form
	@KAFKA_BROKERS= FORMAT=standard-verbose .ci/gotest e2e ./e2e -parallel 5 -skip '^TestConnect$$'"$${ON_KAFKA:-}"

.PHONY: e2e-kafka
e2e-kafka: tools ## crash test, foreign clients, sinks and Kafka Connect on Apache Kafka
	@NO_SKIP=1 FORMAT=standard-verbose .ci/opensearch .ci/s3 .ci/kafka .ci/gotest e2e-kafka './e2e $(with_server)' \
		-parallel 5 -skip '^(TestControls|TestScripts|TestOpenAPI)$$|^TestInstances$$/^(control|all)$$'

.PHONY: faults-short
faults-short: ## three brokers, traffic, a dozen faults and two negative controls, in 5 minutes
	@JARS=1 .ci/kafka go run ./faults -short -seed $${SEED:-1}

.PHONY: page-test
page-test: build ## the page in Chromium, and whether web/build is up to date; SCREENSHOTS=$$PWD/docs writes screenshots
	@.ci/page test

##@ Other targets

.PHONY: race
race: tools ## unit and integration tests under the race detector
	@KAFKA_BROKERS= KAFKA_SASL_BROKERS= CGO_ENABLED=1 .ci/gotest race \
		"$$(go list ./... | grep -v '^tidemark/e2e$$')" -race

.PHONY: crash
crash: tools ## the crash test and its negative controls, long form, on both brokers
	@KAFKA_BROKERS= FORMAT=standard-verbose .ci/gotest crash ./e2e -timeout 60m -args -long
	@FORMAT=standard-verbose .ci/kafka .ci/gotest crash-kafka ./e2e -timeout 60m -args -long

.PHONY: sinks
sinks: tools ## the test of the sinks and its negative control, long form
	@FORMAT=standard-verbose .ci/opensearch .ci/kafka .ci/gotest sinks ./e2e -timeout 60m -run TestSinks -args -long

.PHONY: faults
faults: ## fault tests on three Apache Kafka brokers, an hour or more, and negative controls; report in .cache/faults
	@go run ./faults

.PHONY: bench
bench: ## tidemark, Kafka Streams, goka and a bound by turns; writes docs/performance.md, and the tables of docs/scaling.md. BENCH has flags of `go run ./bench compare`
	@KAFKA_HEAP=1g KAFKA_JVM='-XX:+UseG1GC' deploy/kafka/kafka.sh run go run ./bench compare $(BENCH)

.PHONY: kafka-start
kafka-start: ## start an Apache Kafka broker; `eval "$(make kafka-start)"` sets its address for tests and tidemark
	@deploy/kafka/kafka.sh start

.PHONY: kafka-stop
kafka-stop: ## stop it, and keep its data
	@deploy/kafka/kafka.sh stop

.PHONY: kafka-wipe
kafka-wipe: ## stop it, and delete its data
	@deploy/kafka/kafka.sh wipe

.PHONY: clean
clean: kafka-wipe ## remove everything that was built or fetched
	rm -rf bin .cache

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
