# Step venv: .venv holds exactly what requirements.lock names. Sourced by deploy/setup.sh.
# shellcheck shell=bash

# A copy of the lock, not a time stamp: a clone gives every file a new time.
readonly VENV_STAMP=.venv/requirements.lock

set_up_venv() {
    if venv_is_current; then
        return
    fi
    local wheels=()
    if in_bundle; then
        verify_bundle
        wheels=(--no-index --find-links "$BUNDLE_DIR/wheels")
    fi
    trust_ca_bundle
    create_venv
    install_uv "${wheels[@]}"
    say "installing the Python packages of requirements.lock"
    rm -f "$VENV_STAMP"
    .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --build-constraints requirements.lock \
        "${wheels[@]}" requirements.lock
    cp requirements.lock "$VENV_STAMP"
}

venv_is_current() {
    cmp -s requirements.lock "$VENV_STAMP" && .venv/bin/python -c '' 2>/dev/null
}

create_venv() {
    local python
    if .venv/bin/python -m pip --version >/dev/null 2>&1; then
        return
    fi
    if ! python=$(find_python) && can_apt_install; then
        apt_install python3 python3-venv
    fi
    if ! python=$(find_python); then
        die "expected Python $(python_versions) with the venv module, found $(python3 --version 2>&1 || true)" \
            "install one (Debian, Ubuntu: apt-get install python3 python3-venv), then run this again"
    fi
    say "creating .venv with $python"
    "$python" -m venv --clear .venv
}

# A bundle has the packages of one.
python_versions() {
    if in_bundle; then
        cat "$BUNDLE_DIR/python"
    else
        echo "3.12 or 3.11"
    fi
}

find_python() {
    local candidate versions
    versions=$(python_versions)
    for candidate in python3.12 python3.11 python3; do
        # ensurepip is what Debian packages apart, as python3-venv.
        if "$candidate" -c 'import ensurepip, sys; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1].split())' \
            "$versions" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# install_uv [OPTION_OF_PIP]...
install_uv() {
    if [[ -x .venv/bin/uv ]]; then
        return
    fi
    mkdir -p "$CACHE_DIR"
    awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock >"$CACHE_DIR/uv.lock"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes "$@" -r "$CACHE_DIR/uv.lock"
}
