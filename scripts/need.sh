#!/bin/sh
# Makes sure that Debian packages are there: scripts/need.sh PACKAGE...
# Installs what is missing with apt where it may; elsewhere it says what is missing and fails.
set -eu

missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    # Not Debian: names differ, so only the programs can be looked for.
    echo "This is not a Debian system. Please see to it that these Debian packages (or what they" >&2
    echo "are called here) are installed:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    run=
elif sudo -n true 2>/dev/null; then
    run="sudo -n"
else
    echo "Missing packages:$missing" >&2
    echo "Install them with: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# The first try may fail on a machine whose package lists are old or were never fetched.
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
    $run apt-get update -qq >&2
    $run apt-get install -y -qq --no-install-recommends $missing >&2
}
