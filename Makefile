# warrend: everything a newcomer, a developer and CI run. `make` alone lists it.
#
# On a bare Debian 12 with a Rust toolchain, `make demo` and `make test` need nothing else: what is missing is installed
# from Debian's packages, and a private RabbitMQ node is started below target/. See tests/support.

SHELL = /bin/sh
CARGO_TARGET_DIR ?= $(CURDIR)/target
CARGO_HOME ?= $(HOME)/.cargo
export CARGO_TARGET_DIR
export PATH := $(PATH):$(CARGO_HOME)/bin

PREFIX = /usr/local
DESTDIR =
SYSCONFDIR = /etc
# Where zsh looks for completions; Debian's packages have a folder of their own.
ZSHDIR = $(PREFIX)/share/zsh/site-functions
# What is installed and packed.
BINARY ?= $(CARGO_TARGET_DIR)/release/warrend

# Passed on: ARGS="name_of_a_test" make test
ARGS ?=
# Of `make fuzz`: how many inputs each of its tests tries.
CASES ?= 20000
# Of the benchmark; ONLY names contestants and sections, MESSAGES is of the fastest (200000).
ROUNDS ?= 5
ONLY ?=
MESSAGES ?=
MILLIONS ?=
WAITING ?=
BASELINE ?=
# Of `make chaos`: ROWS names rows or their beginnings, COUNTS the faults of some (daemon-kill=50), MARKDOWN a file for the table.
LONG ?= 1
ROWS ?=
COUNTS ?=
SEED ?=
MARKDOWN ?=
# Minutes, and messages a second.
SOAK ?= 60
RATE ?= 500

support = tests/support
scripts = $(wildcard $(support)/*.sh tests/bench/*.sh tests/package/*.sh examples/*/*.sh systemd/package/*.sh systemd/package/debian/p*)

.PHONY: help deps deps-broker build demo test check check-metrics fuzz bench chaos soak broker-start broker-stop clean

help:
	@echo 'make demo           see warrend at work on a private RabbitMQ: about half a minute after the first build'
	@echo 'make test           every test, those against a real RabbitMQ included; one of them: make test ARGS=NAME'
	@echo 'make check          formatting, lints and documentation, without warnings'
	@echo 'make check-metrics  alert rules, dashboard and page, judged by promtool'
	@echo 'make fuzz           what parses foreign input, tried with 20,000 inputs each: some minutes; CASES=1000000 for a night'
	@echo 'make bench          the performance suite, half an hour; ROUNDS=5 ONLY=discard,worker,latency'
	@echo 'make chaos          every fault, injected over and over: some hours; ROWS=daemon-kill COUNTS=daemon-kill=50'
	@echo 'make soak           an hour of work with a fault every minute, after which nothing must have grown; SOAK=minutes'
	@echo 'make build          the release binary'
	@echo 'make install        binary, units, manual, completions, configuration; DESTDIR= PREFIX=/usr/local; make uninstall'
	@echo 'make deb            the Debian package; make test-deb installs, upgrades and purges it in a Debian of its own'
	@echo 'make deps           installs what a build needs; the other targets call it'
	@echo 'make broker-start   the private RabbitMQ node, kept running: tests start faster'
	@echo 'make broker-stop    ends it'
	@echo 'make clean          removes everything built'
	@echo
	@echo 'WARREND_AMQP_URL=amqp://... uses a broker that runs already instead of the private node.'

deps:
	@sh $(support)/deps.sh

# The private node's packages are asked for only where that node is used.
deps-broker:
	@sh $(support)/deps.sh $(if $(WARREND_AMQP_URL),,broker)

build: deps
	cargo build --release --locked

demo: deps-broker
	@echo 'building warrend (two to three minutes of CPU time the first time)'
	@cargo build --locked
	@bash $(support)/demo.sh

# Some tests restart their broker: they bring a node of their own, so RabbitMQ is installed in any case. They mostly wait.
test:
	@sh $(support)/deps.sh broker
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-3} bash $(support)/with-broker.sh cargo test --locked $(ARGS)

check: deps
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items
	@for script in $(scripts); do \
		case $$(head -n 1 $$script) in *bash*) shell=bash ;; *) shell=sh ;; esac; \
		echo "$$shell -n $$script"; $$shell -n $$script || exit 1; \
	done
	@bash $(support)/check-units.sh
	@bash $(support)/check-metrics.sh

# The same with Prometheus' own tools in any case, and a real page before their eyes.
check-metrics:
	@sh $(support)/deps.sh broker
	@sh $(support)/deps.sh metrics
	@bash $(support)/check-metrics.sh
	bash $(support)/with-broker.sh cargo test --locked --test it metrics::the_page_is

# `make test` tries 256 inputs each. A failure prints the smallest input that it found: that becomes a test of its own.
fuzz: deps
	PROPTEST_CASES=$(CASES) PROPTEST_MAX_SHRINK_ITERS=100000 cargo test --locked --bin warrend fuzz:: $(ARGS)

# What warrend is compared with comes from Debian and from PyPI, and only here.
bench: deps-broker
	@sh $(support)/deps.sh bench
	@sh tests/bench/peers.sh
	@ROUNDS='$(ROUNDS)' ONLY='$(ONLY)' MESSAGES='$(MESSAGES)' MILLIONS='$(MILLIONS)' WAITING='$(WAITING)' BASELINE='$(BASELINE)' \
		bash $(support)/with-broker.sh cargo bench --locked --bench suite

# The release build: what `make test` does in short with the checks of a debug build.
chaos:
	@sh $(support)/deps.sh broker
	@LONG='$(LONG)' ROWS='$(ROWS)' COUNTS='$(COUNTS)' SEED='$(SEED)' MARKDOWN='$(MARKDOWN)' \
		bash $(support)/with-broker.sh cargo test --release --locked --test chaos

# It brings a node of its own.
soak:
	@sh $(support)/deps.sh broker
	@SOAK='$(SOAK)' RATE='$(RATE)' SEED='$(SEED)' cargo test --release --locked --test chaos

broker-start: deps-broker
	@bash $(support)/broker.sh start

broker-stop:
	@bash $(support)/broker.sh stop

# Run as root after `make build`: root seldom has a Rust toolchain. An existing configuration is not touched. What changes the
# system beyond its files is left to whoever installs, and whoever packs has triggers for it.
.PHONY: install uninstall
install:
	@test -x $(BINARY) || { echo 'no release binary: run `make build` first' >&2; exit 1; }
	@sh systemd/package/install-files.sh '$(BINARY)' '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)' '$(ZSHDIR)'
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/warrend
	@test -n '$(DESTDIR)' || printf '%s\n' 'Next, as root: the user of the daemon, its folders, and its units made known to systemd.' \
		'    systemd-sysusers $(PREFIX)/lib/sysusers.d/warrend.conf' \
		'    systemd-tmpfiles --create $(PREFIX)/lib/tmpfiles.d/warrend.conf' \
		'    systemctl daemon-reload'

# What `install` put there is taken away; /etc/warrend and the store stay.
uninstall:
	@BINARY='$(BINARY)' sh systemd/package/uninstall.sh '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)'

# The Debian package, in target/debian; installed, upgraded and purged in a Debian of its own.
.PHONY: deb test-deb
deb: build
	@sh $(support)/deps.sh package
	@sh systemd/package/deb.sh

test-deb: deb
	@sh $(support)/deps.sh broker
	bash $(support)/with-broker.sh bash tests/package/deb.sh

# The committed copy of what `warrend config schema` prints; a test compares them.
.PHONY: schema
schema: deps
	cargo run --locked --quiet -- config schema >config/warrend.schema.json.new
	mv config/warrend.schema.json.new config/warrend.schema.json

clean:
	@bash $(support)/broker.sh stop
	cargo clean
