# What the steps of deploy/setup.sh share. Sourced, never run.
# shellcheck shell=bash

readonly CACHE_DIR=.cache

# A private CA is in the host's bundle, and the tools that carry their own list have to be told.
CA_BUNDLE=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}

say() {
    echo "setup: $*"
}

# die WHAT_HAPPENED WHAT_TO_DO
die() {
    printf 'setup: %s\n       To do: %s\n' "$1" "$2" >&2
    exit 1
}

# die_with_log WHAT_HAPPENED WHAT_TO_DO LOG_FILE
die_with_log() {
    printf 'setup: last lines of %s:\n' "$3" >&2
    tail -n 15 "$3" | sed 's/^/    /' >&2
    die "$1" "$2"
}

can_apt_install() {
    ! in_bundle && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && [[ -e /etc/debian_version ]]
}

apt_install() {
    local log=$CACHE_DIR/apt.log
    mkdir -p "$CACHE_DIR"
    say "installing $*"
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        </dev/null >"$log" 2>&1; then
        die_with_log "apt-get could not install: $*" "look at $log, then run this again" "$log"
    fi
}

trust_ca_bundle() {
    if [[ -s $CA_BUNDLE ]]; then
        export SSL_CERT_FILE=${SSL_CERT_FILE:-$CA_BUNDLE} PIP_CERT=${PIP_CERT:-$CA_BUNDLE}
    fi
}
