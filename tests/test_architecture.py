"""What the code may not do, checked on its text and on what importing it causes."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "llmproxy"
MODULES = sorted(PACKAGE.rglob("*.py"))

SQL_FROM_CONSTANTS = {
    ("reports/requests.py", "statement"),
    ("reports/own.py", "statement"),
    ("reports/spending.py", "statement"),
    ("reports/summary.py", "statement"),
    ("rollup_check.py", "statement"),
    ("storage/database.py", "pragma"),
    ("storage/migrations.py", "statement"),
    ("storage/wal.py", "statement"),
}
"""Names that run over literals of ours, each looked at by a person."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in MODULES:
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What is assigned to a name in capitals at the top of a module."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def is_fixed(node: ast.expr, known: dict[str, ast.expr]) -> bool:
    """Say whether an expression is text from literals and constants of the module alone."""
    match node:
        case ast.Constant(value=str() | int()):
            return True
        case ast.Name(id=name):
            return name in known and is_fixed(known[name], known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_fixed(left, known) and is_fixed(right, known)
        case ast.JoinedStr(values=values):
            return all(is_fixed(value, known) for value in values)
        case ast.FormattedValue(value=value):
            return is_fixed(value, known)
    return False


def test_every_sql_statement_is_a_literal_or_a_constant_of_its_module() -> None:
    seen, wrong = 0, []
    for name, tree in trees():
        known = constants(tree)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in {"execute", "executemany", "executescript"}:
                continue
            seen += 1
            sql = node.args[0]
            is_listed = isinstance(sql, ast.Name) and (name, sql.id) in SQL_FROM_CONSTANTS
            if not (is_listed or is_fixed(sql, known)):
                wrong.append(f"{name}:{node.lineno}: {ast.unparse(sql)}")
    assert seen > 50
    assert wrong == []


def test_only_storage_opens_databases() -> None:
    openers = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"sqlite3.connect", "sqlite3.Connection", "connect"}
    }
    assert openers == {"storage/copies.py", "storage/database.py"}


def test_no_module_holds_state_that_changes() -> None:
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    wrong = []
    for name, tree in trees():
        wrong += [
            f"{name}:{node.lineno}: global"
            for node in ast.walk(tree)
            if isinstance(node, ast.Global)
        ]
        for node in tree.body:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_call = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in {
                *("dict", "list", "set", "defaultdict", "deque", "Counter", "count"),
                *("itertools.count", "asyncio.Queue", "threading.Lock", "weakref.WeakSet"),
            }
            if not (is_call or isinstance(node.value, mutable)):
                continue
            names = [ast.unparse(target) for target in targets]
            wrong += [f"{name}:{node.lineno}: {one}" for one in names if not one.isupper()]
    assert wrong == []


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def test_help_loads_nothing_heavy() -> None:
    loaded = run_python("""
import contextlib, io, sys
sys.argv = ["llmproxy", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    from llmproxy.cli.app import main
    main()
print(*sys.modules)
""").split()
    heavy = {"litestar", "httpx", "httptools", "sqlite_utils", "uvicorn", "cryptography", "msgspec"}
    assert "llmproxy.cli.app" in loaded
    assert heavy & set(loaded) == set()


def test_importing_any_module_reads_no_file_no_setting_and_no_network() -> None:
    names = [
        ".".join(("llmproxy", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in MODULES
        if path.name not in {"__main__.py", "__init__.py"}
    ]
    did = json.loads(
        run_python(f"""
import importlib, json, os, sys
did = []
def is_ours():
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen"):
        frame = frame.f_back
    return frame is not None and {str(PACKAGE)!r} in frame.f_code.co_filename
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so")):
        return
    if event.startswith(("open", "socket.", "sqlite3.", "subprocess.")) and is_ours():
        did.append([event, str(arguments[0])])
read = os.environ.__class__.__getitem__
def note(self, name):
    if is_ours():
        did.append(["environ", name])
    return read(self, name)
os.environ.__class__.__getitem__ = note
sys.addaudithook(hook)
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(did))
""")
    )
    assert did == []


def raised_codes() -> set[str]:
    """Every error code that the program can send."""
    found = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            candidates = [k.value for k in node.keywords if k.arg == "code"]
            if called in {"ApiError", "_error_event"} and len(node.args) > 1:
                candidates.append(node.args[1])
            found |= {
                candidate.value
                for candidate in candidates
                if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str)
            }
    return found | {"proxy_error"}


def test_every_error_code_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == raised_codes()


@pytest.mark.parametrize(
    "sql", ["f'SELECT {name}'", "'SELECT ' + name", "sql", "'%s' % name", "''.join(parts)"]
)
def test_the_check_of_statements_sees_what_it_must(sql: str) -> None:
    assert not is_fixed(ast.parse(sql, mode="eval").body, {})
