"""S28: one place sends requests to providers, and it can only be reached with an admitted order."""

import ast
import inspect
from functools import cache
from pathlib import Path

import llmproxy
from llmproxy.attempts import Attempts
from llmproxy.exchange import Exchange
from llmproxy.order import Order

PACKAGE = Path(llmproxy.__file__).parent


@cache
def named() -> dict[str, set[str]]:
    """What each module names with a dot in it, or calls: `upstream.post`, `Order`."""
    return {
        path.relative_to(PACKAGE).as_posix(): {
            ast.unparse(node if isinstance(node, ast.Attribute) else node.func)
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, (ast.Attribute, ast.Call))
        }
        for path in PACKAGE.rglob("*.py")
    }


def callers(name: str) -> set[str]:
    """The modules that call something of this name, or pass it on."""
    return {
        module
        for module, names in named().items()
        if any(each == name or each.endswith(f".{name}") for each in names)
    }


def test_requests_leave_by_one_call() -> None:
    assert callers("upstream.post") == {"attempts.py"}
    assert callers("Attempts") == {"exchange.py"}
    assert callers("Exchange") == {"relay.py"}
    assert callers("Order") == {"relay.py"}


def test_who_sends_must_have_an_order() -> None:
    for kind in (Attempts, Exchange):
        assert inspect.signature(kind).parameters["order"].annotation is Order


def test_sockets_and_processes_are_opened_where_it_is_known() -> None:
    assert callers("create_connection") == {"upstream.py"}
    assert callers("urllib.request.build_opener") == {"fetch.py"}
    starters = callers("subprocess.run") | callers("subprocess.Popen") | callers("os.system")
    starters |= callers("create_subprocess_exec") | callers("create_subprocess_shell")
    assert starters <= {"demo/provider.py", "demo/run.py", "demo/stage.py", "demo/client.py"}
    assert callers("eval") | callers("exec") | callers("pickle.loads") <= set()
