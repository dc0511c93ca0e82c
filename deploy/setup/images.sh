# Step images: base images are in the engine, and .cache/images.env names them. Sourced by deploy/setup.sh.
# shellcheck shell=bash

readonly IMAGES_ENV=$CACHE_DIR/images.env
readonly STANDIN_DIR=deploy/images/standin
readonly REGISTRY_WAIT_SECONDS=10

set_up_images() {
    local python_image postgres_image
    if in_bundle; then
        load_images
        return
    fi
    python_image=$(base_image PYTHON_IMAGE python)
    postgres_image=$(base_image POSTGRES_IMAGE postgres)
    write_images_env "PYTHON_IMAGE=$python_image" "POSTGRES_IMAGE=$postgres_image"
}

# What a bundle names is loaded from it: never pulled, never built.
load_images() {
    local names line
    mapfile -t names <"$BUNDLE_DIR/images.env"
    for line in "${names[@]}"; do
        if ! has_image "${line#*=}"; then
            verify_bundle
            say "loading the images"
            docker load --quiet --input "$BUNDLE_DIR/images.tar"
            break
        fi
    done
    write_images_env "${names[@]}"
}

# base_image VARIABLE KIND: prints the image to use, after fetching or building it if need be.
base_image() {
    local official standin
    official=$(sed -n "s/^$1=//p" deploy/images/pins.env)
    standin=$(standin_tag "$2")
    if has_image "$official" || { ! has_image "$standin" && pull "$official"; }; then
        echo "$official"
        return
    fi
    if ! has_image "$standin"; then
        build_standin "$2" "$standin" "$official" >&2
    fi
    echo "$standin"
}

has_image() {
    docker image inspect "$1" >/dev/null 2>&1
}

# The short wait is for the registry's first answer only: after it a slow download may take its time.
pull() {
    local log=$CACHE_DIR/pull.log tries=$((REGISTRY_WAIT_SECONDS * 4)) pid
    mkdir -p "$CACHE_DIR"
    say "asking the registry for $1" >&2
    docker pull "$1" >"$log" 2>&1 &
    pid=$!
    until grep -q 'Pulling from' "$log"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            break
        fi
        if ((tries-- == 0)); then
            kill "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.25
    done
    wait "$pid" 2>/dev/null
}

# standin_tag KIND: names the recipe by its content, so that a changed one is a new image.
standin_tag() {
    local files=("$STANDIN_DIR/rootfs.sh")
    if [[ $1 != debian ]]; then
        files+=("$STANDIN_DIR/$1"*)
    fi
    echo "parquet-marts/$1-standin:$(cat "${files[@]}" | sha256sum | cut -c -16)"
}

build_standin() {
    local kind=$1 tag=$2 official=$3 debian log=$CACHE_DIR/$1-standin.log
    debian=$(standin_tag debian)
    require_root_and_debootstrap "$official"
    if ! has_image "$debian"; then
        build_debian "$debian"
    fi
    say "building $tag from Debian packages in place of $official"
    # The host's network: no packet of a build is then larger than its way out takes.
    if ! docker build --network host --build-arg "DEBIAN_IMAGE=$debian" --tag "$tag" \
        --file "$STANDIN_DIR/$kind.Dockerfile" "$STANDIN_DIR" >"$log" 2>&1; then
        die_with_log "building $tag failed" "look at $log; DEBIAN_MIRROR names another mirror" "$log"
    fi
}

build_debian() {
    local root mirror log=$CACHE_DIR/debootstrap.log
    mirror=$(debian_mirror)
    root=$(mktemp -d "${TMPDIR:-/var/tmp}/debian-standin.XXXXXX")
    # shellcheck disable=SC2064 # the path of now; --one-file-system: debootstrap may leave /proc mounted
    trap "rm -rf --one-file-system '$root'" EXIT
    say "building $1 with debootstrap (about 40 s, once)"
    if ! "$STANDIN_DIR/rootfs.sh" "$root" "$mirror" >"$log" 2>&1; then
        die_with_log "debootstrap from $mirror failed" "look at $log; DEBIAN_MIRROR names another mirror" "$log"
    fi
    tar -C "$root" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -c . | docker import - "$1" >/dev/null
    rm -rf --one-file-system "$root"
    trap - EXIT
}

# The mirror that this host itself uses, unless DEBIAN_MIRROR names another.
debian_mirror() {
    local mirror=${DEBIAN_MIRROR:-}
    if [[ -z $mirror ]]; then
        # shellcheck disable=SC2016 # apt-get's own variables
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Component: main' |
            sed -n 's|/* bookworm$||p' | head -n 1)
    fi
    if [[ -z $mirror ]]; then
        die "no mirror of Debian bookworm is among this host's apt sources" "name one in DEBIAN_MIRROR"
    fi
    echo "$mirror"
}

require_root_and_debootstrap() {
    if ! command -v debootstrap >/dev/null && can_apt_install; then
        apt_install debootstrap
    fi
    if [[ $(id -u) != 0 ]] || ! command -v debootstrap >/dev/null; then
        die "no container registry gave $1 ($(tail -n 1 "$CACHE_DIR/pull.log" 2>/dev/null)), and a stand-in needs root \
and debootstrap" \
            "docker load the image from elsewhere, name one that you can pull in deploy/images/pins.env, or run as root \
on Debian"
    fi
}

# write_images_env NAME=IMAGE...
write_images_env() {
    local ca_bundle=$CA_BUNDLE
    mkdir -p "$CACHE_DIR"
    if [[ ! -e $ca_bundle ]]; then
        # A build secret must name a file, and the build ignores an empty one.
        ca_bundle=$PWD/$CACHE_DIR/no-ca-bundle
        : >"$ca_bundle"
    fi
    printf '%s\n' "$@" "CA_BUNDLE=$ca_bundle" >"$IMAGES_ENV.new"
    if ! cmp -s "$IMAGES_ENV.new" "$IMAGES_ENV"; then
        printf 'setup: %s\n' "$@"
        mv "$IMAGES_ENV.new" "$IMAGES_ENV"
    fi
    rm -f "$IMAGES_ENV.new"
}
