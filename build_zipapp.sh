#!/usr/bin/env bash
# Builds dist/llmproxy: the whole program as one executable file for this Python and machine.
#
#   ./build_zipapp.sh [OUTPUT]
#
# Needs Python 3.11 or newer with venv, and PyPI. PYTHON names the interpreter (default: python3).
# Everything packed is checked against the hashes in requirements.lock. The same sources, Python
# and machine give the same bytes, wherever and whenever they are built.
set -euo pipefail
umask 022
out=${1:-}
[[ -z $out || $out == /* ]] || out=$PWD/$out
cd "$(dirname "$0")"
root=$PWD
out=${out:-$root/dist/llmproxy}
python=${PYTHON:-python3}
work=$root/build/zipapp
venv=$work/venv
site=$work/site-packages

# Settings of the caller that would change what is built.
unset PYTHONHOME PYTHONPATH PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_REQUIREMENT PIP_TARGET \
    PIP_PREFIX PIP_ROOT PIP_USER PIP_NO_BINARY PIP_NO_DEPS PIP_PRE
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}

say() { printf '%s\n' "zipapp: $*"; }
fail() { printf '%s\n' "build_zipapp.sh: $*" >&2; exit 1; }

# --- the interpreter ---------------------------------------------------------------------------

command -v "$python" >/dev/null || fail "$python not found; install Python 3.11 or newer (apt install python3 python3-venv), or set PYTHON"
version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "llmproxy needs Python 3.11 or newer; $python is $version. Set PYTHON to another one, as in PYTHON=python3.11 $0"
"$python" -I -c 'import ensurepip, venv' 2>/dev/null \
    || fail "$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv (or python$version-venv)"

# pip's log is shown only when it fails.
quietly() {
    local log=$work/pip.log
    "$@" >"$log" 2>&1 || { cat "$log" >&2; fail "failed, log above: $*"; }
}

# --- the tools: pip, shiv and hatchling, as pinned -----------------------------------------------

stamp="$("$python" -I -c 'import sys; print(sys.version, sys.executable)' | cksum) $(cksum <requirements-build.lock)"
if [[ ! -x $venv/bin/python || $(cat "$venv/stamp" 2>/dev/null) != "$stamp" ]]; then
    say "tools for Python $version"
    rm -rf "$venv"
    mkdir -p "$work"
    quietly "$python" -I -m venv "$venv"
    quietly "$venv/bin/python" -I -m pip install --require-hashes --no-deps --only-binary :all: -r requirements-build.lock
    printf '%s\n' "$stamp" >"$venv/stamp"
fi
pip() { quietly "$venv/bin/python" -I -m pip "$@"; }

# --- what goes in --------------------------------------------------------------------------------

say "dependencies, hash-checked"
rm -rf "$site" "$work/wheel"
pip install --require-hashes --no-deps --only-binary :all: --no-compile --target "$site" -r requirements.lock
rm -rf "$site/bin"

say "llmproxy itself"
pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheel" .
pip install --no-deps --no-index --no-compile --target "$site" "$work"/wheel/llmproxy-*.whl
[[ -s $site/llmproxy/model_catalog.json ]] || fail "the wheel has no model_catalog.json"
[[ -s $site/llmproxy/dashboard/templates/base.html && -s $site/llmproxy/dashboard/static/style.css ]] \
    || fail "the wheel has no templates or static files of the dashboard"

# Dead weight. pip: for `sqlite-utils install`; Faker and polyfactory: for made-up examples in
# Litestar's schema; tzdata: systems bring their own; rich-click: for Litestar's command line;
# pygments' lexers: rich asks for one by name, and only to colour code.
rm -rf "$site"/{bin,pip,faker,polyfactory,tzdata,rich_click} \
    "$site"/{pip,faker,polyfactory,tzdata,rich_click}-*.dist-info
find "$site/pygments/lexers" -name '[a-z]*.py' ! -name python.py ! -name special.py -delete
find "$site" -depth -type d \( -name __pycache__ -o -name tests -o -name sboms \) -exec rm -rf {} +
find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.c' -o -name '*.h' \) -delete
# These name files that are gone, or the folder of this build.
find "$site" -type f -path '*.dist-info/*' \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \) -delete

if command -v strip >/dev/null; then
    case $(uname -s) in
        Darwin) find "$site" -name '*.so' -exec strip -x {} + 2>/dev/null || fail "strip failed" ;;
        *) find "$site" -type f \( -name '*.so' -o -name '*.so.*' \) -exec strip --strip-all {} + || fail "strip failed" ;;
    esac
else
    say "no strip here (apt install binutils): the file gets larger"
fi
find "$site" -type d -exec chmod 755 {} +
find "$site" -type f -exec chmod 644 {} +

# --- the one file --------------------------------------------------------------------------------

say "packing"
mkdir -p "$(dirname "$out")"
rm -f "$out" "$out.new"
"$venv/bin/python" -I - "$site" "$out.new" <<'PY'
import runpy
import sys
from pathlib import Path

import shiv.builder
import shiv.cli

site, out = sys.argv[1:]
for metadata in Path(site).glob("*.dist-info/METADATA"):  # the head is data, the body a README
    metadata.write_bytes(metadata.read_bytes().partition(b"\n\n")[0] + b"\n")
built_for = runpy.run_path("scripts/zipapp_main.py", run_name="zipapp_main")["this_python"]()
shiv.builder.MAIN_TEMPLATE = Path("scripts/zipapp_main.py").read_text().replace("@BUILT_FOR@", built_for)
shiv.cli.main([
    "--site-packages", site,
    "--entry-point", "llmproxy.cli.app:main",
    "--output-file", out,
    "--python", "/usr/bin/env -S python3 -I",
    "--reproducible",
])
PY
[[ -s $out.new ]] || fail "shiv wrote nothing"

# --- does it start? ------------------------------------------------------------------------------

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/check.py" <<'PY'
"""Imports every compiled module: none was broken by stripping, none misses what was left out."""
import importlib
import importlib.machinery
import sys
from pathlib import Path

site = Path(sys.argv[1])
sys.path.insert(0, str(site))
suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
for path in sorted(site.rglob("*.so")):
    if path.name.endswith(suffixes):
        importlib.import_module(".".join((*path.relative_to(site).parts[:-1], path.name.split(".")[0])))
for name in ("litestar", "httpx", "uvicorn", "uvloop", "sqlite_utils", "typer", "rich", "aiohappyeyeballs", "jinja2"):
    importlib.import_module(name)
PY
"$venv/bin/python" -I -W ignore "$scratch/check.py" "$site" || fail "a module does not import"
(cd "$scratch" && env -i HOME="$scratch" PATH="$PATH" "$python" -I "$out.new" --version) \
    || fail "the file does not start"
mv "$out.new" "$out"

size=$(wc -c <"$out")
sum=$("$python" -I -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$out")
say "$out: $((size / 1000000)).$((size / 100000 % 10)) MB for Python $version, SHA-256 $sum"
