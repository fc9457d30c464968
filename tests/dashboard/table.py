"""The dashboard's table of routes, as the program itself builds it."""

from functools import cache
from typing import Any, cast

from litestar import Litestar
from litestar.routes import HTTPRoute

from llmproxy.clock import Clock
from llmproxy.dashboard.routes import dashboard_routes
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.visit import ReachedAt

NONE = cast("Any", None)
"""What no route needs before it is asked for."""


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Return methods with paths, such as `("GET", "/dashboard/settings")`; HEAD goes with GET."""
    site = Site(ReachedAt("", (), 0), NONE, NONE, Clock(), NONE)
    app = Litestar(dashboard_routes(site, NONE), openapi_config=None, logging_config=None)
    return frozenset(
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method not in {"HEAD", "OPTIONS"}
    )
