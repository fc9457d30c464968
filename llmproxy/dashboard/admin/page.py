"""Owns the frame of the operator's pages."""

from collections.abc import Mapping

from litestar import Response

from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site


def admin_page(
    site: Site,
    template: str,
    signed_in: SignedIn,
    tab: str,
    values: Mapping[str, object],
    *,
    status: int = 200,
) -> Response[bytes]:
    """Return one of these pages; `tab` is its name in the row of tabs of `admin.html`."""
    framed = {**values, "page": "admin", "tab": tab}
    return site.page(template, signed_in.visit, framed, status=status, signed_in=signed_in)
