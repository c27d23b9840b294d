# `just --list` names these; CONTRIBUTING.md says when to use them.

# all tests, on both cipher backends
test *ARGS:
    scripts/test {{ARGS}}

# formatting and lints, as CI checks them
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# rustfmt in place
fmt:
    cargo fmt --all

# the documentation; a warning is an error
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# fuzz one target, e.g. `just fuzz open_message -max_total_time=300`
fuzz TARGET *ARGS:
    mkdir -p fuzz/corpus/{{TARGET}}
    cargo +nightly fuzz run {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}} -- {{ARGS}}

# the benches; arguments go to criterion, e.g. `just bench --quick`
bench *ARGS:
    cargo bench --all-features --bench message --bench keyring --bench store --bench file -- {{ARGS}}

# the README's tables and its plot, strongroom beside other crates; builds two cloud SDKs. `just bench-table --quick` only smokes
bench-table *ARGS:
    cargo run --release --manifest-path benches/peers/Cargo.toml --no-default-features -- {{ARGS}}
    cargo run --release --manifest-path benches/peers/Cargo.toml -- {{ARGS}}

# formatting and lints of benches/peers, which CI does not build
lint-peers:
    cargo fmt --check --manifest-path benches/peers/Cargo.toml
    cargo clippy --manifest-path benches/peers/Cargo.toml --no-default-features -- -D warnings
    cargo clippy --manifest-path benches/peers/Cargo.toml -- -D warnings

# are the vectors on disk what the reference writes? (`scripts/test` makes .venv)
vectors:
    .venv/bin/python tests/reference/make_vectors.py --check
    .venv/bin/python tests/reference/make_file_vectors.py --check
    .venv/bin/python tests/reference/make_reserved_vectors.py --check
    .venv/bin/python tests/reference/make_row_vectors.py --check

# everything that must hold before a merge
ci:
    .ci/run
