# make            builds the executable: target/release/webpresence
# make static     builds one that runs on any Linux: target/ARCH-unknown-linux-musl/release/webpresence
# make test       installs what is missing (apt) and runs everything
# make demo       shows it with real servers on this machine; Ctrl-C ends it (make demo CHECK=1 looks by itself)
# make bench      measures speed, memory and load beside its peers and writes benches/RESULTS.md (ROUNDS=3 SECONDS=1: a look)
# make bench-probe  counts the round trips of a probe against real servers and writes benches/PROBE.md
# make bench-privacy  asks for 3,000 people who may not be seen and writes benches/PRIVACY.md
# make soak       asks for ten minutes with a wrong password, and counts what reaches the XMPP server
# make icons      draws the pictures again from their SVG sources

.PHONY: all static test demo bench bench-probe bench-privacy soak icons

all:
	cargo build --release --locked

STATIC = $(shell rustc -vV | sed -n 's/^host: \([^-]*\)-.*/\1/p')-unknown-linux-musl
static:
	@rustc --print target-libdir --target $(STATIC) | xargs ls >/dev/null 2>&1 || { echo "missing: rustup target add $(STATIC)"; exit 1; }
	@command -v musl-gcc >/dev/null || { echo "missing: apt-get install musl-tools"; exit 1; }
	cargo build --release --locked --target $(STATIC)

test:
	sh tests/rig/install.sh test
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked
	cargo clippy --locked --no-default-features --features native-tls -- -D warnings
	cargo test --locked --features native-tls --test real tls::
	cargo clippy --locked --all-targets --features redis -- -D warnings
	cargo test --locked --features redis --lib --test config
	cargo test --locked --features redis --test real redis::
	cd images/maker && cargo fmt --check && cargo test --locked && cargo run --locked -- --check
	@echo "Everything passes."

demo:
	sh tests/rig/install.sh demo
	cargo build --release --locked
	/usr/bin/python3 contrib/demo/demo.py $(if $(CHECK),--check)

# Where the static build cannot be had, its rows say so.
bench:
	sh tests/rig/install.sh bench
	cargo build --release --locked
	rm -f target/$(STATIC)/release/webpresence
	-$(MAKE) static
	cargo bench --locked --bench speed

bench-probe:
	sh tests/rig/install.sh test
	cd benches/peer && cargo build --release --locked --bin account
	cd benches/peer && cargo build --release --locked --features component --bin component
	cargo bench --locked --bench probe

bench-privacy:
	sh tests/rig/install.sh test
	cargo bench --locked --bench privacy

# Four rounds of a quarter of the time: three restarts.
soak:
	sh tests/rig/install.sh test
	SOAK_SECONDS=600 cargo test --locked --test real -- --nocapture ejabberd_sees_a_wrong

icons:
	cargo run --release --locked --manifest-path images/maker/Cargo.toml
