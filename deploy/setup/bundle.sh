# In a directory that was unpacked from what `make bundle` wrote, everything comes from there, and nothing from a network.
# Sourced by deploy/setup.sh.
# shellcheck shell=bash

readonly BUNDLE_DIR=bundle
bundle_verified=

in_bundle() {
    [[ -d $BUNDLE_DIR ]]
}

# Before anything is taken from it; once is enough for all steps.
verify_bundle() {
    local machine wrong
    if [[ $bundle_verified ]]; then
        return
    fi
    machine=$(cat "$BUNDLE_DIR/machine")
    if [[ $(uname -m) != "$machine" ]]; then
        die "this bundle is for $machine, and this host is $(uname -m)" "make a bundle on a host of that kind"
    fi
    say "comparing the bundle with its checksums"
    if ! wrong=$(sha256sum --check --strict --quiet SHA256SUMS 2>&1); then
        printf '%s\n' "$wrong" | sed 's/^/    /' >&2
        die "the bundle is not what \`make bundle\` wrote: the files above differ from SHA256SUMS; nothing was installed" \
            "carry it here again, compare the archive with its .sha256 before unpacking, and unpack it anew"
    fi
    bundle_verified=yes
}
