# Steps wrk and bench: what `make bench` asks with, and what it measures beside us. Sourced by deploy/setup.sh.
# shellcheck shell=bash

readonly PEERS_LOCK=tests/bench/peers.lock
readonly PEERS_VENV=$CACHE_DIR/bench/venv
readonly PEERS_STAMP=$PEERS_VENV/peers.lock

set_up_wrk() {
    if ! command -v wrk >/dev/null && can_apt_install; then
        apt_install wrk
    fi
    if ! command -v wrk >/dev/null; then
        die "expected wrk, the load generator, on PATH, and found none" \
            "install it (Debian: apt-get install wrk), then run this again; only the benchmarks need it"
    fi
}

set_up_bench() {
    set_up_wrk
    set_up_postgres
    set_up_peers
}

set_up_postgres() {
    if find_postgres; then
        return
    fi
    if can_apt_install; then
        # The benchmarks make their own cluster: none of the package's is wanted, nor its port.
        install -d /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/parquet-marts.conf
        apt_install postgresql-15
    fi
    if ! find_postgres; then
        die "expected PostgreSQL in /usr/lib/postgresql/<version>/bin, and found none" \
            "install it (Debian: apt-get install postgresql-15), then run this again; only the benchmarks need it"
    fi
}

find_postgres() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# In an environment of their own, so that nothing of theirs is ever imported by what is measured as ours.
set_up_peers() {
    if cmp -s "$PEERS_LOCK" "$PEERS_STAMP" && "$PEERS_VENV/bin/python" -c '' 2>/dev/null; then
        return
    fi
    set_up_venv
    trust_ca_bundle
    say "installing the peers of $PEERS_LOCK (about 350 MB)"
    .venv/bin/uv venv --quiet --clear --python .venv/bin/python "$PEERS_VENV"
    .venv/bin/uv pip sync --quiet --python "$PEERS_VENV/bin/python" --require-hashes "$PEERS_LOCK"
    cp "$PEERS_LOCK" "$PEERS_STAMP"
}
