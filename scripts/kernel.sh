#!/bin/sh
# Fetches the Debian cloud kernel that the tests and the demo boot, and prints its folder.
#
#   scripts/kernel.sh [image|package|debug|other|scripts]
#
# image    (default) the unpacked package: FOLDER/boot/vmlinuz-RELEASE and what lies beside it
# package  the package itself, as a .deb
# other    another release, for tests that compare two: the newest of the archive's that is not this one
# debug    as image, with the debug vmlinux below FOLDER/usr/lib/debug
# scripts  scripts/faddr2line, scripts/decode_stacktrace.sh and scripts/diffconfig of Linux, which tests
#          and benches are held against; prints the folder that has them below scripts/
#
# Nothing is installed. The release is that of the newest installed linux-headers-*-cloud-amd64,
# since the tests build a module against it.
set -eu
what=${1:-image}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kolumbo
release=$(ls -d /usr/src/linux-headers-*-cloud-amd64 2>/dev/null | sed 's/.*linux-headers-//' | sort -V | tail -n 1)
if [ -z "$release" ]; then
    echo "no kernel headers: install linux-headers-cloud-amd64" >&2
    exit 1
fi
folder=$cache/kernels/$release
packages=$cache/packages-debian

# fetch PACKAGE: downloads it unless it is there, prints its path.
fetch() {
    found=$(ls "$packages/$1"_*.deb 2>/dev/null | head -n 1 || true)
    if [ -z "$found" ]; then
        mkdir -p "$packages"
        aside=$(mktemp -d "$packages/.fetch-XXXXXX")
        trap 'rm -rf "$aside"' EXIT
        echo "downloading $1" >&2
        (cd "$aside" && { apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$1" ||
            { apt-get -qq update && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$1"; }; }) >&2
        mv "$aside"/*.deb "$packages/"
        found=$(ls "$packages/$1"_*.deb | head -n 1)
    fi
    echo "$found"
}

# unpack PACKAGE MARK: unpacks it into the folder unless the file MARK is there.
unpack() {
    [ -e "$folder/$2" ] && return
    deb=$(fetch "$1")
    mkdir -p "$folder"
    dpkg -x "$deb" "$folder" >&2
}

case $what in
package)
    fetch "linux-image-$release"
    exit
    ;;
image) unpack "linux-image-$release" "boot/vmlinuz-$release" ;;
debug)
    unpack "linux-image-$release" "boot/vmlinuz-$release"
    unpack "linux-image-$release-dbg" "usr/lib/debug/boot/vmlinux-$release"
    ;;
scripts)
    tree=$cache/linux-scripts
    if [ ! -e "$tree/scripts/diffconfig" ]; then
        series=$(echo "$release" | cut -d. -f1,2)
        deb=$(fetch "linux-source-$series")
        mkdir -p "$tree"
        dpkg --fsys-tarfile "$deb" | tar -xO "./usr/src/linux-source-$series.tar.xz" |
            tar -xJ -C "$tree" --strip-components 1 --wildcards \
                '*/scripts/faddr2line' '*/scripts/decode_stacktrace.sh' '*/scripts/diffconfig'
    fi
    echo "$tree"
    exit
    ;;
other)
    release=$(apt-cache search --names-only '^linux-image-[0-9.]*-[0-9]*-cloud-amd64$' | cut -d ' ' -f 1 |
        sed 's/linux-image-//' | grep -vxF "$release" | sort -V | tail -n 1)
    [ -n "$release" ] || { echo "the archive has no second linux-image-*-cloud-amd64" >&2; exit 1; }
    # What was fetched before is good enough.
    have=$(ls -d "$cache"/other-kernels/*/ 2>/dev/null | head -n 1 || true)
    [ -z "$have" ] || { echo "${have%/}"; exit; }
    folder=$cache/other-kernels/$release
    unpack "linux-image-$release" "boot/vmlinuz-$release"
    ;;
*)
    echo "usage: scripts/kernel.sh [image|package|debug|other|scripts]" >&2
    exit 2
    ;;
esac
echo "$folder"
