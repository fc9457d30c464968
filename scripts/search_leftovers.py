"""Searches what a run of the test suite has left for secrets: `search_leftovers.py FOLDER`.

FOLDER is what pytest was given as `--basetemp`. The suite's provider key may stand nowhere, an API
key only in the configuration that a test writes for schemathesis, and a master key only in files
that are key files. Exit code 1 when something is found.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from llmproxy import vault
from tests.support.proxy import PROVIDER_KEY

API_KEY = re.compile(rb"llmp_[A-Za-z0-9]{20,60}")
MASTER_KEY = re.compile(rb"[0-9a-f]{64}")
NO_KEY = b"0" * 64
"""What one test takes for a master key; zeros stand in many places."""
MAY_HOLD_API_KEY = "schemathesis.toml"


def is_key_file(path: Path) -> bool:
    """Say whether a file is where a test keeps a master key."""
    return path.name.startswith("master.key") or ".key" in path.suffixes


def secrets_in(path: Path, masters: set[bytes]) -> list[str]:
    """Return what kinds of secrets stand in a file that should not."""
    data = path.read_bytes()
    found = ["a provider key"] if PROVIDER_KEY.encode() in data else []
    api_keys = [key for key in API_KEY.findall(data) if vault.is_well_formed(key.decode())]
    if api_keys and path.name != MAY_HOLD_API_KEY:
        found.append("an API key")
    if not is_key_file(path) and masters.intersection(MASTER_KEY.findall(data)):
        found.append("a master key")
    return found


def main() -> int:
    """Search and print; return the exit code."""
    files = [path for path in Path(sys.argv[1]).rglob("*") if path.is_file()]
    keys = [path.read_bytes().strip() for path in files if is_key_file(path)]
    masters = {key for key in keys if MASTER_KEY.fullmatch(key)} - {NO_KEY}
    found = [f"{path}: {what}" for path in files for what in secrets_in(path, masters)]
    print(f"{len(files)} files, {len(masters)} master keys: {len(found) or 'no'} secrets found")
    print(*found, sep="\n")
    return 1 if found or not masters else 0


if __name__ == "__main__":
    sys.exit(main())
