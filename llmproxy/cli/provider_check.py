"""Command `providers check`: does each provider answer to each of its keys?"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.completion import provider_names
from llmproxy.cli.options import Json, examples
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.key_pool import Provider, ProviderKey
    from llmproxy.probe import Probe
    from llmproxy.vault import Vault

EXAMPLES = examples("llmproxy providers check", "llmproxy providers check openai --json")
PROBES_AT_ONCE = 8


class Checked(NamedTuple):
    """One key of one provider, and what the provider said to it."""

    provider: "Provider"
    key: "ProviderKey"
    probe: "Probe"


def check(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Only this provider; else all set up.",
            autocompletion=provider_names,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask providers for their models with each key. Exits with 1 if any failed.

    Costs nothing and changes nothing: enable a key that works again with
    llmproxy provider-keys enable. Disabled keys are not tried. A key out of
    quota may list models all the same.
    """
    checked = check_keys(name)
    if as_json:
        output.print_json([_as_json(each) for each in checked])
    elif checked:
        _print(checked)
    else:
        whose = name or "openai"
        output.say(f"No key to try. Add one: llmproxy provider-keys add {whose}")
    if any(each.probe.result != "ok" for each in checked):
        raise typer.Exit(1)


def check_keys(name: str | None) -> list[Checked]:
    """Try every key that is not disabled, of one provider or of all.

    Raises:
        NotFoundError: no such provider is set up.
    """
    from llmproxy import key_pool
    from llmproxy.config import find_paths, load_vault
    from llmproxy.errors import NotFoundError

    with opening.reading() as tx:
        providers = {each.name: each for each in key_pool.list_providers(tx)}
        keys = key_pool.list_provider_keys(tx, name)
    if name is not None and name not in providers:
        msg = f"Provider {name!r:.80} is not set up. See: llmproxy providers list"
        raise NotFoundError(msg)
    wanted = [(providers[key.provider], key) for key in keys if key.state != "disabled"]
    vault = load_vault(find_paths())
    with ThreadPoolExecutor(PROBES_AT_ONCE) as threads:
        probes = threads.map(lambda each: _probe(each[0], each[1], vault), wanted)
        return [Checked(*each, found) for each, found in zip(wanted, probes, strict=True)]


def _probe(provider: "Provider", key: "ProviderKey", vault: "Vault | None") -> "Probe":
    from llmproxy.errors import VaultError
    from llmproxy.probe import Probe, probe

    if key.is_keyless:
        return probe(provider, "")
    try:
        if vault is None:
            return Probe("sealed", None, "its master key is missing; see: llmproxy doctor")
        secret = vault.open(
            key.sealed, row_id=key.id, provider=provider.name, base_url=provider.base_url
        )
    except VaultError as error:
        return Probe("sealed", None, str(error))
    return probe(provider, secret)


def _as_json(each: Checked) -> dict[str, object]:
    return {
        "provider": each.provider.name,
        "base_url": each.provider.base_url,
        "key": each.key.name,
        "state": each.key.state,
        "result": each.probe.result,
        "status": each.probe.status,
        "message": each.probe.message,
    }


def _print(checked: list[Checked]) -> None:
    output.print_table(
        (
            Column("PROVIDER"),
            Column("KEY"),
            Column("STATE", "state"),
            Column("RESULT", "state"),
            Column("ANSWER", may_wrap=True),
        ),
        [
            (
                each.provider.name,
                each.key.name,
                each.key.state,
                each.probe.result,
                each.probe.message,
            )
            for each in checked
        ],
    )
    for each in checked:
        if each.probe.result == "ok" and each.key.state == "dead":
            command = f"llmproxy provider-keys enable {each.provider.name} {each.key.name}"
            output.say(f"{each.key.name} of {each.provider.name} works again: {command}")
