"""How providers, their keys and their history are shown, as tables and as JSON."""

from typing import TYPE_CHECKING

from llmproxy.cli import output
from llmproxy.cli.output import Column
from llmproxy.provider_states import state_of

if TYPE_CHECKING:
    from llmproxy.key_pool import Provider, ProviderKey
    from llmproxy.provider_events import ProviderEvent, Statuses


def key_json(key: "ProviderKey", statuses: "Statuses") -> dict[str, object]:
    """Return a provider key as `--json` shows it; its secret is not known."""
    from llmproxy.clock import rfc3339
    from llmproxy.shown import key_fields

    fields = {"provider": key.provider, **key_fields(key, statuses)}
    return {**fields, "created_at": rfc3339(key.created_at_ms)}


def provider_json(
    name: str, provider: "Provider | None", keys: "list[ProviderKey]", statuses: "Statuses"
) -> dict[str, object]:
    """Return a provider as `--json` shows it."""
    from llmproxy.clock import rfc3339
    from llmproxy.presets import PRESETS

    known = provider or PRESETS[name]
    return {
        "name": name,
        "state": state_of(provider, keys).replace(" ", "_"),
        "reason": provider.paused_reason if provider else None,
        "upstream_status": statuses.get((name, None)) if provider else None,
        "since": rfc3339(provider.paused_at_ms) if provider else None,
        "until": rfc3339(provider.paused_until_ms) if provider else None,
        "by": provider.paused_by if provider else None,
        "dialect": known.dialect,
        "base_url": known.base_url,
        "stream_options": bool(known.injects_usage),
        "keys": [key_json(key, statuses) for key in keys],
        "created_at": rfc3339(provider.created_at_ms) if provider else None,
    }


def why(provider: "Provider", keys: "list[ProviderKey]") -> str:
    """Return what keeps a provider, or some of its keys, from use."""
    parts = [f"{provider.paused_reason} ({provider.paused_by})"] if provider.paused_at_ms else []
    if provider.paused_until_ms:
        parts.append(f"tried again {output.short_time(provider.paused_until_ms)}")
    parts += [
        f"{key.name} {key.state}: {key.state_reason}"
        for key in keys
        if key.state != "active" and key.state_reason
    ]
    return "; ".join(parts)


def event_json(event: "ProviderEvent") -> dict[str, object]:
    """Return an event of the history as `--json` shows it."""
    from llmproxy.clock import rfc3339

    return {
        "at": rfc3339(event.created_at_ms),
        "key": event.provider_key,
        "state": event.state,
        "reason": event.reason,
        "upstream_status": event.upstream_status,
        "until": rfc3339(event.until_ms),
        "by": event.actor,
    }


def print_events(events: "list[ProviderEvent]") -> None:
    """Print the history as a table."""
    output.print_table(
        (
            Column("TIME (UTC)", "dim"),
            Column("WHAT"),
            Column("BECAME", "state"),
            Column("WHY", may_wrap=True),
            Column("UNTIL", "dim", is_optional=True),
            Column("BY", "dim"),
        ),
        [
            (
                output.short_time(event.created_at_ms),
                event.provider_key or event.provider,
                event.state,
                event.reason or "",
                output.short_time(event.until_ms),
                event.actor,
            )
            for event in events
        ],
    )


def print_keys(
    keys: "list[ProviderKey]", statuses: "Statuses", *, with_provider: bool = False
) -> None:
    """Print provider keys as a table."""
    columns = [
        Column("NAME"),
        Column("KEY", "dim"),
        Column("STATE", "state"),
        Column("WHY", may_wrap=True),
        Column("HTTP", "dim", is_optional=True),
        Column("SINCE (UTC)", "dim", is_optional=True),
        Column("BY", "dim", is_optional=True),
    ]
    rows = [
        [
            key.name,
            key.masked,
            key.state,
            key.state_reason or "",
            str(statuses.get((key.provider, key.name)) or ""),
            output.short_time(key.state_since_ms),
            key.state_by,
        ]
        for key in keys
    ]
    if with_provider:
        columns.insert(0, Column("PROVIDER"))
        rows = [[key.provider, *row] for key, row in zip(keys, rows, strict=True)]
    output.print_table(columns, rows)
