#!/usr/bin/env bash
# Pins every dependency anew from pyproject.toml. Needs uv (https://docs.astral.sh/uv/).
#
#   scripts/lock.sh              keeps what is pinned where it still fits
#   scripts/lock.sh --upgrade    takes the newest of everything
#
# Writes  requirements.lock        what the program runs on, with hashes, for every platform
#         requirements-build.lock  what builds the zipapp, with hashes
#         constraints.txt          what the development install takes (PIP_CONSTRAINT), no hashes
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
command -v "$uv" >/dev/null || { echo "lock.sh: uv not found; pip install uv, or set UV" >&2; exit 1; }

# Settings of this machine (indexes, mirrors) have no place in the files.
for name in $(compgen -e UV_ || true); do unset "$name"; done

compile() { # OUTPUT HEADER ARGUMENT...
    local out=$1 header=$2
    shift 2
    "$uv" --no-config pip compile --quiet --universal --python-version 3.11 --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$out" "$@" >/dev/null
    printf '%s\n' "# $header" '# Written by scripts/lock.sh; do not edit.' | cat - "$out" >"$out.new"
    mv "$out.new" "$out"
}

build=$(mktemp)
trap 'rm -f "$build"' EXIT
printf '%s\n' hatchling editables shiv >"$build"

compile requirements.lock 'What the program runs on.' --generate-hashes "$@" pyproject.toml
compile requirements-build.lock 'What builds the zipapp.' --generate-hashes "$@" "$build"
# pip is left out: the environment brings its own.
compile constraints.txt 'What the development install takes.' --no-emit-package pip \
    --constraint requirements.lock --constraint requirements-build.lock "$@" \
    --extra dev pyproject.toml "$build"

if grep -nE '://|--(index|extra-index|find-links)|@ ' requirements.lock requirements-build.lock constraints.txt; then
    echo 'lock.sh: an address found its way into a lock file (above)' >&2
    exit 1
fi
wc -l requirements.lock requirements-build.lock constraints.txt
