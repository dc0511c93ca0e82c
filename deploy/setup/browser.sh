# Step browser: Chromium, which the tests of the page drive. Sourced by deploy/setup.sh.
# shellcheck shell=bash

set_up_browser() {
    if find_browser; then
        return
    fi
    if can_apt_install; then
        apt_install chromium
    fi
    if ! find_browser; then
        die "expected Chromium as 'chromium' or 'google-chrome' on PATH, found neither" \
            "install it (Debian: apt-get install chromium), then run this again; only the tests need it"
    fi
}

find_browser() {
    command -v chromium >/dev/null || command -v google-chrome >/dev/null
}
