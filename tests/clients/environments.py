"""Where the clients live: virtual environments and Node projects, kept between runs.

Each is made once under `.client-venvs/` from its pinned list, and anew when the list changes.
`python -m tests.clients.environments` makes all of them beforehand, and
`python -m tests.clients.environments lock` pins the newest versions (needs uv and npm).
"""

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".client-venvs"
PYTHON_SETS = ("legacy", "frameworks", "llamaindex", "genai_prices")
NODE_SETS = ("node", "programs")
"""Libraries, and what is run by its name; two, since the programs are a hundred times as large."""
NODE_VERSION_MIN = 20


def python_of(name: str) -> str:
    """Return the interpreter of an environment of pinned packages, made if need be."""
    pins = HERE / "python" / f"{name}.txt"
    home = CACHE / f"{name}-{_digest(pins)}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        _remove_older(name)
        _run(sys.executable, "-m", "venv", str(home))
        # Everything is in the list: nothing else is to be resolved, or taken from elsewhere.
        _run(str(python), "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", pins)
        (home / "complete").touch()
    return str(python)


def node_project(name: str = "node") -> Path:
    """Return a folder with the pinned packages in `node_modules`, made if need be."""
    source = HERE / name
    home = CACHE / f"{name}-{_digest(source / 'package-lock.json')}"
    if not (home / "complete").exists():
        _remove_older(name)
        home.mkdir(parents=True)
        for file in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(source / file, home / file)
        _run("npm", "ci", "--silent", cwd=home)
        (home / "complete").touch()
    return home


def why_no_node() -> str | None:
    """Return why Node's clients cannot run here; None if they can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not installed: the Node clients are not tested"
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if int(said.stdout.lstrip("v").partition(".")[0]) < NODE_VERSION_MIN:
        return f"node {said.stdout.strip()} is older than {NODE_VERSION_MIN}"
    return None


def lock() -> None:
    """Pin the newest versions that fit `*.in` and `package.json`."""
    for name in PYTHON_SETS:
        pins = HERE / "python" / f"{name}.txt"
        _run(
            *(os.environ.get("UV", "uv"), "--no-config", "pip", "compile", "--quiet", "--upgrade"),
            *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *("--no-emit-package", "pip", "--output-file", pins, pins.with_suffix(".in")),
        )
    for name in NODE_SETS:
        _run("npm", "install", "--package-lock-only", "--silent", cwd=HERE / name)


def _digest(file: Path) -> str:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}".encode()
    return hashlib.sha256(version + file.read_bytes()).hexdigest()[:12]


def _remove_older(name: str) -> None:
    for folder in CACHE.glob(f"{name}-*"):
        shutil.rmtree(folder)


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    # The constraints of the development install are not for these.
    environ = {name: value for name, value in os.environ.items() if "CONSTRAINT" not in name}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environ, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        lock()
    else:
        # At once: most of it is waiting for the network.
        with ThreadPoolExecutor() as pool:
            made = [pool.submit(python_of, each) for each in PYTHON_SETS]
            made += [
                pool.submit(lambda name: why_no_node() or str(node_project(name)), each)
                for each in NODE_SETS
            ]
        for each in made:
            print(each.result())
