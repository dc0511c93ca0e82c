#!/usr/bin/env bash
# Usage: rootfs.sh DIRECTORY MIRROR
# A minimal Debian bookworm in DIRECTORY, trimmed as the official slim images are. Needs root and debootstrap.
set -euo pipefail

root=$1
mirror=$2

debootstrap --variant=minbase bookworm "$root" "$mirror"

cat >"$root/etc/apt/sources.list" <<EOF
deb $mirror bookworm main
deb $mirror bookworm-updates main
deb $mirror-security bookworm-security main
EOF

cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'EOF'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
EOF

# Package scripts must not start services: there is no init in a container.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/man" -mindepth 1 -delete
find "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/var/log" -type f -delete
# debootstrap copies both from this host.
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
