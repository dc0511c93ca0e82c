# Step compose: `docker compose` is new enough. Needs .venv, which carries the binary. Sourced by deploy/setup.sh.
# shellcheck shell=bash

# The first with both !reset and !override.
readonly COMPOSE_MINIMUM=2.24.4

set_up_compose() {
    local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins binary
    if compose_is_new_enough; then
        return
    fi
    binary=$(echo .venv/lib/python3.*/site-packages/compose/docker-compose)
    if [[ ! -f $binary ]]; then
        die "expected Docker Compose $COMPOSE_MINIMUM or newer, found $(compose_version), and none in .venv" \
            "run deploy/setup.sh venv first, or install the Compose plugin"
    fi
    say "installing the Compose plugin in $plugins"
    # A copy: a link would dangle for every other clone once this one is deleted.
    mkdir -p "$plugins"
    rm -f "$plugins/docker-compose"
    install -m 755 "$binary" "$plugins/docker-compose"
    if ! compose_is_new_enough; then
        die "expected Docker Compose $COMPOSE_MINIMUM or newer from $plugins, found $(compose_version)" \
            "check that $plugins/docker-compose runs on this machine"
    fi
}

compose_version() {
    docker compose version --short 2>/dev/null || echo none
}

compose_is_new_enough() {
    local version
    version=$(compose_version)
    [[ $version != none ]] && printf '%s\n' "$COMPOSE_MINIMUM" "${version#v}" | sort -C -V
}
