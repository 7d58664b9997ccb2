# make            builds the executable: target/release/webpresence
# make test       installs what is missing (apt) and runs everything
# make demo       shows it with real servers on this machine; Ctrl-C ends it (make demo CHECK=1 looks by itself)
# make bench-probe  counts the round trips of a probe against real servers and writes benches/PROBE.md
# make bench-privacy  asks for 3,000 people who may not be seen and writes benches/PRIVACY.md
# make soak       asks for ten minutes with a wrong password, and counts what reaches the XMPP server
# make icons      draws the pictures again from their SVG sources

.PHONY: all test demo bench-probe bench-privacy soak icons

all:
	cargo build --release --locked

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
