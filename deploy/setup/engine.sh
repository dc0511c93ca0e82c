# Step engine: a Docker engine answers. Sourced by deploy/setup.sh.
# shellcheck shell=bash

readonly DOCKERD_LOG=/var/log/dockerd.log
readonly DOCKERD_WAIT_SECONDS=60

set_up_engine() {
    if engine_answers; then
        return
    fi
    if ! can_apt_install; then
        die "no Docker engine answers: $(docker version 2>&1 >/dev/null | tail -n 1 || true)" \
            "install Docker Engine 20.10 or newer, start it, and let $(id -un) use it (group docker)"
    fi
    if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null || ! command -v iptables >/dev/null; then
        apt_install docker.io iptables debootstrap
    fi
    if ! engine_answers; then
        start_engine
    fi
}

engine_answers() {
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
    local pid='' tries=$((DOCKERD_WAIT_SECONDS * 2))
    if [[ -d /run/systemd/system ]]; then
        systemctl start docker
    elif ! pgrep -x dockerd >/dev/null; then
        say "starting dockerd, which logs to $DOCKERD_LOG"
        # shellcheck disable=SC2046 # no option or two words
        setsid dockerd $(mtu_option) </dev/null >>"$DOCKERD_LOG" 2>&1 &
        pid=$!
    fi
    until engine_answers; do
        if [[ $pid ]] && ! kill -0 "$pid" 2>/dev/null; then
            die_with_log "dockerd ended before it answered" "mend what its log says, then run this again" "$DOCKERD_LOG"
        fi
        if ((tries-- == 0)); then
            touch "$DOCKERD_LOG"
            die_with_log "the Docker engine did not answer within $DOCKERD_WAIT_SECONDS s" \
                "mend what its log says (with systemd: journalctl -u docker), then run this again" "$DOCKERD_LOG"
        fi
        sleep 0.5
    done
}

# Where the way out takes smaller packets than Docker's 1500 bytes, the bridge must know: not every network says so.
mtu_option() {
    local interface mtu
    interface=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route)
    mtu=$(cat "/sys/class/net/$interface/mtu" 2>/dev/null || echo 1500)
    if ((mtu < 1500)) && ! grep -qs '"mtu"' /etc/docker/daemon.json; then
        echo "--mtu $mtu"
    fi
}
