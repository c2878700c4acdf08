#!/usr/bin/env bash
# Looks for known holes of an image's Debian packages that Debian has mended. `make check` audits its Python packages.
# usage: scan.sh STATUS    dpkg's list in the image, /var/lib/dpkg/status
# Ends with 1 where there are any; where the database can't be had it says so, and succeeds.
set -euo pipefail

not_run() {
    echo "NOT RUN: the scan of the image's Debian packages, $1" | tee -a "${NOT_RUN:-/dev/null}"
    exit 0
}

command -v debsecan >/dev/null || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends debsecan >/dev/null
} || not_run "which needs the package debsecan"
source=(${DEBSECAN_SOURCE:+--source "$DEBSECAN_SOURCE"})
if ! holes=$(debsecan --suite trixie --status "$1" --only-fixed "${source[@]}" 2>&1); then
    not_run "since its database can't be had: $(tail -1 <<<"$holes")"
fi
echo "$(grep -c ^Package: "$1") Debian packages scanned, $(grep -c . <<<"$holes" || true) known holes that a newer base mends"
[ -z "$holes" ] || { echo "$holes"; exit 1; }
