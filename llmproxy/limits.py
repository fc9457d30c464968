"""Owns the limits of an API key or of a user, as values: what they are, and what they allow.

Amounts are nano-USD. Must not count anything: that is meters.py.
"""

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import msgspec
from msgspec import UNSET, UnsetType

from llmproxy.money import format_usd
from llmproxy.shapes import LimitsSet

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ROWS_KEPT_MAX = 10_000
VELOCITY_SPAN_S = 600
VELOCITY_SPANS_PER_HOUR = 6
"""The speed of spending is measured over ten minutes and told per hour."""
_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses within IPv6 (RFC 4291, 2.5.5.2)."""
RATES = ("requests_per_minute", "tokens_per_minute", "concurrent_max")
AMOUNTS = ("daily_budget_nanousd", "monthly_budget_nanousd", "spend_per_hour_nanousd")
LISTS = ("models", "providers", "networks")


class Limits(msgspec.Struct, frozen=True):
    """The limits of an API key, or of a user with all their keys; None is no limit.

    A user has the first three only. An API key that replaces another shares its limits with it,
    and what has been used of them: one `id` for both.
    """

    id: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None
    daily_budget_nanousd: int | None = None
    monthly_budget_nanousd: int | None = None
    spend_per_hour_nanousd: int | None = None
    models: tuple[str, ...] | None = None
    """Ids of the catalog; a `*` at the end stands for any rest."""
    providers: tuple[str, ...] | None = None
    networks: tuple[Network, ...] | None = None
    suspended_at_ms: int | None = None
    suspended_reason: str | None = None
    resumed_at_ms: int = 0
    """When a suspension was last lifted: an older one counts no more."""

    @property
    def is_suspended(self) -> bool:
        """Say whether the key may do nothing until the operator resumes it."""
        return self.suspended_at_ms is not None and self.suspended_at_ms > self.resumed_at_ms

    @property
    def needs_books(self) -> bool:
        """Say whether what is spent must be known."""
        return (
            self.daily_budget_nanousd is not None
            or self.monthly_budget_nanousd is not None
            or self.spend_per_hour_nanousd is not None
        )

    @property
    def is_nothing(self) -> bool:
        """Say whether nothing is limited."""
        is_set = (getattr(self, name) is not None for name in (*RATES, *AMOUNTS, *LISTS))
        return not self.is_suspended and not any(is_set)

    def allows_provider(self, provider: str) -> bool:
        """Say whether requests may go to a provider."""
        return self.providers is None or provider in self.providers

    def allows_model(self, model_id: str) -> bool:
        """Say whether a model of the catalog may be used."""
        return self.models is None or any(_matches(each, model_id) for each in self.models)

    def allows_address(self, address: Address | None) -> bool:
        """Say whether requests may come from an address; None is one that is not known."""
        if self.networks is None:
            return True
        return address is not None and any(address in network for network in self.networks)

    def as_json(self) -> dict[str, object]:
        """Return the limits that are set; money as exact decimal strings of USD."""
        shown: dict[str, object] = msgspec.to_builtins(self.shown())
        return shown

    def shown(self) -> LimitsSet:
        """Return the limits that are set, in the shape in which they are told."""
        return LimitsSet(
            requests_per_minute=_or_unset(self.requests_per_minute),
            tokens_per_minute=_or_unset(self.tokens_per_minute),
            concurrent_max=_or_unset(self.concurrent_max),
            daily_budget_usd=_usd(self.daily_budget_nanousd),
            monthly_budget_usd=_usd(self.monthly_budget_nanousd),
            spend_per_hour_usd=_usd(self.spend_per_hour_nanousd),
            models=_texts(self.models),
            providers=_texts(self.providers),
            networks=_texts(self.networks),
        )


def _or_unset(limit: int | None) -> int | UnsetType:
    return UNSET if limit is None else limit


def _usd(limit_nanousd: int | None) -> str | UnsetType:
    return UNSET if limit_nanousd is None else format_usd(limit_nanousd)


def _texts(values: tuple[object, ...] | None) -> list[str] | UnsetType:
    return UNSET if values is None else [str(each) for each in values]


def _matches(pattern: str, model_id: str) -> bool:
    if pattern.endswith("*"):
        return model_id.startswith(pattern[:-1])
    return model_id == pattern


@lru_cache(ROWS_KEPT_MAX)
def limits_from(row: tuple[object, ...]) -> Limits | None:
    """Return the limits of a row of the table `limits`, None where nothing is limited.

    Lists are stored as texts with commas between their members. What was read is kept: a server
    reads the rows of all keys with each change of any.
    """
    if row[0] is None:
        return None
    fields = dict(zip(Limits.__struct_fields__, row, strict=True))
    for name in LISTS:
        text = fields[name]
        if text is not None:
            parts = str(text).split(",")
            fields[name] = tuple(map(_network, parts) if name == "networks" else parts)
    limits = Limits(**fields)  # type: ignore[arg-type]
    return None if limits.is_nothing else limits


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return addresses and networks that stand in a text with commas between them.

    Networks of IPv4 addresses within IPv6 count as what they are, as such addresses do.

    Raises:
        ValueError: one is none, or has bits set behind its prefix.
    """
    return tuple(_network(each.strip()) for each in text.split(",") if each.strip())


def _network(text: str) -> Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address.ipv4_mapped
        return IPv4Network(f"{address}/{network.prefixlen - _MAPPED.prefixlen}")
    return network


def parse_address(text: str) -> Address | None:
    """Return an IP address, which may have a port behind it, or None if it is none.

    An IPv4 address within IPv6 counts as what it is.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def client_address(
    peer: str, forwarded_for: list[bytes], trusted: tuple[Network, ...]
) -> Address | None:
    """Return the address that a request comes from, None when it cannot be told.

    That is the peer's, unless it is a trusted proxy: then the last address in `x-forwarded-for`
    that is not one of theirs too, for anybody may have written what stands before it.

    Args:
        peer: the other end of the connection.
        forwarded_for: the values of that header, in their order.
        trusted: where trusted proxies are.
    """
    address = parse_address(peer)
    hops = b",".join(forwarded_for).decode("latin-1").split(",") if forwarded_for else []
    while address is not None and hops and any(address in network for network in trusted):
        address = parse_address(hops.pop())
    return address
