# `make demo` and `make test` are all a newcomer needs; both install what is
# missing. Downloads and built guests are kept in $XDG_CACHE_HOME/outboard.

# What users run; tests run the programs with debug assertions instead.
RELEASE := --locked --release

# On a machine without kvm_intel, an emulated one shows what differs by the kind of host:
# debug exceptions, crashes, the stopped clock, a debugged Linux.
INTEL := OUTBOARD_BED=intel cargo test --locked --package tests
INTEL_TESTS := host:: crash:: gdb::breakpoints gdb::ends gdb::events gdb::int3 gdb::modes \
	gdb::monitor::an_access gdb::rings gdb::stepping gdb::watchpoints \
	disk_reads_right no_time_passes stepping::programs_get stepping::the_kernel_patches
INTEL_LOG := target/test-intel.log

# Of an installation; packagers give DESTDIR too.
PREFIX := /usr/local
STAGE := target/stage

.PHONY: help demo shell test test-linux test-intel soak bench conformance build setup lint clean \
	stage install uninstall deb package-test

help:
	@echo 'make demo    Linux on out-of-process disk and network, with gdb attached'
	@echo 'make shell   the same guest with an interactive console'
	@echo 'make test    lints, unit tests and end-to-end tests'
	@echo 'make soak    a thousand backends and 500 machines killed, a thousand resets, ten million gdb packets, a stop of ten minutes,'
	@echo '             ten million operations of hostile guests,'
	@echo '             all bare-metal tests on an emulated Intel processor'
	@echo 'make bench   the measures of docs/performance.md'
	@echo 'make conformance   docs/conformance.md: outboard-check, on all backends and frontends that there are'
	@echo 'make build   the programs, in target/release'
	@echo 'make install [PREFIX=/usr/local] [DESTDIR=]   programs, man pages, completions, systemd units'
	@echo 'make uninstall   the reverse, with the same PREFIX and DESTDIR'
	@echo 'make deb     a Debian package, in target/debian'
	@echo 'make package-test   the package, in fresh Debian 12 and 13 systems (needs root)'
	@echo 'make setup   what all of these need: packages, guests, the bed'

setup:
	@tests/setup/all

setup-%:
	@tests/setup/all $*

build:
	cargo build $(RELEASE) --workspace

# What users get, without tests.
stage:
	cargo build $(RELEASE) --bins --package vmm --package guest-init --package backends --package workbench --package manual
	@vmm/packaging/stage $(STAGE) $(PREFIX)

install: stage
	mkdir -p '$(DESTDIR)/'
	cp -R --no-preserve=ownership $(STAGE)/. '$(DESTDIR)/'

uninstall: stage
	@vmm/packaging/unstage $(STAGE) '$(DESTDIR)'

deb: PREFIX := /usr
deb: STAGE := target/stage-deb
deb: setup-deb stage
	@vmm/packaging/deb

package-test: deb
	@tests/package target/debian/*.deb

demo: setup-demo
	@tests/bed/run target/release/demo

shell: setup-demo
	@tests/bed/run --tty target/release/shell

bench: setup-bench build
	@cargo bench --locked --package tests --bench instructions
	@target/release/bench
	@cargo bench --locked --package backends --bench disk --bench frames
	@tests/bed/run target/release/bench linux
	@OUTBOARD_BED_ICOUNT=yes tests/bed/run tests/bed/in-memory target/release/bench start

conformance: setup-conformance
	cargo build --locked --workspace
	@tests/conformance

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

test: setup lint
	cargo build --locked --workspace
	cargo test --locked --workspace --exclude tests
	cargo test --locked --package tests --test architecture --test bare
	@$(MAKE) --no-print-directory --jobs=2 test-linux test-intel; status=$$?; \
	cat $(INTEL_LOG); exit $$status
	cargo test --locked --package tests --test unmet

# Side by side, for each emulated machine has one CPU. What the Intel one says is kept until
# the other has ended.
test-linux:
	cargo test --locked --package tests --test linux --test shell

test-intel:
	@: >$(INTEL_LOG)
	! tests/bed-intel/run --why || $(INTEL) --test bare --test linux -- $(INTEL_TESTS) >$(INTEL_LOG) 2>&1

soak: setup
	cargo build --locked --workspace
	OUTBOARD_FUZZ_PACKETS=10000000 cargo test --locked --package gdb neither_stops
	OUTBOARD_KILLS=1000 cargo test --locked --package tests --test bare killstorm -- --nocapture
	OUTBOARD_VMM_KILLS=500 cargo test --locked --package tests --test bare killed:: -- --nocapture
	OUTBOARD_STOPPED=60 cargo test --locked --package tests --test bare clocks -- --nocapture
	OUTBOARD_RESETS=1000 cargo test --locked --package tests --test bare -- --nocapture resets rust_vmm
	OUTBOARD_FUZZ_SEED=$$(date +%s) OUTBOARD_FUZZ_GUESTS=50 cargo test --locked --package tests --test bare hostile -- --nocapture
	OUTBOARD_API_EXAMPLES=300 cargo test --locked --package tests --test bare openapi
	OUTBOARD_FUZZ_CASES=10000 cargo test --locked --package backends --test hostile --test hostile_rings
	OUTBOARD_FUZZ_CASES=5000 cargo test --locked --package devices --test hostile
	OUTBOARD_BED_SILENCE=900 OUTBOARD_STOPPED=600 cargo test --locked --package tests --test linux no_time_passes
	OUTBOARD_BED_SILENCE=900 OUTBOARD_LINUX_KILLS=500 OUTBOARD_CYCLES=500 OUTBOARD_LINUX_REBOOTS=100 cargo test --locked --package tests --test linux storms
	OUTBOARD_BED_SILENCE=900 OUTBOARD_STEP_PLACES=1000 cargo test --locked --package tests --test linux -- --nocapture every_step
	! tests/bed-intel/run --why || OUTBOARD_BED_TIMEOUT=7200 $(INTEL) --test bare

clean:
	cargo clean
