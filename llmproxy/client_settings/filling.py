"""Owns how a client's text becomes the setting for one server, API key and set of limits."""

import re
from collections.abc import Iterable

from llmproxy.catalog import Catalog
from llmproxy.client_settings.choice import find_client
from llmproxy.client_settings.client import BASE_URL, KEY, KEY_VARIABLE, Client, Setting
from llmproxy.limits import Limits

_FROM_ENVIRONMENT = {
    "python": f'os.environ["{KEY_VARIABLE}"]',
    "js": f"process.env.{KEY_VARIABLE}",
}
_PYTHON_IMPORT = "import os\n\n"
# Ids may be anything printable: only these stand in quotes of every kind as what they are.
_QUOTABLE = re.compile(r"[\w.:/@+-]+", re.ASCII)


def setting_of(
    client: Client, base_url: str, api_key: str = KEY, *, writes_key: bool = False
) -> Setting:
    """Return a client's setting for a server.

    Args:
        client: of `clients()`.
        base_url: the server's address, checked (`check_address`).
        api_key: what stands where the API key belongs.
        writes_key: it stands in code too, which else takes it from the environment.
    """
    text = _with_key(client, api_key) if writes_key else client.text
    return Setting(
        client.name,
        client.title,
        client.language,
        _filled(text, base_url, api_key),
        client.place,
        tuple(_filled(note, base_url, api_key) for note in client.notes),
    )


def allowed_settings(
    names: Iterable[str], base_url: str, api_key: str, limits: Limits | None, catalog: Catalog
) -> list[Setting]:
    """Return the settings that work with an API key, in the order of the names.

    Each names a model that the key may use; what its limits leave no model for is left out.
    """
    found = []
    for name in names:
        client = find_client(name)
        if not client.provider:
            found.append(setting_of(client, base_url, api_key))
            continue
        model = _allowed_model(client, limits, catalog)
        if model is None:
            continue
        setting = setting_of(_with_model(client, model, limits), base_url, api_key)
        found.append(setting)
    return found


def _filled(text: str, base_url: str, api_key: str) -> str:
    return text.replace(BASE_URL, base_url).replace(KEY, api_key)


def _with_key(client: Client, api_key: str) -> str:
    """Return a text with the key in it instead of the variable that has it."""
    if client.language == "sh":
        return client.text.replace(f"${KEY_VARIABLE}", api_key)
    variable = _FROM_ENVIRONMENT.get(client.language)
    if variable is None:
        return client.text
    text = client.text.replace(variable, f'"{api_key}"')
    return text.removeprefix(_PYTHON_IMPORT) if client.language == "python" else text


def _with_model(client: Client, model: str, limits: Limits | None) -> Client:
    """Return a client with an allowed model in its text, where it names one."""
    is_limited = limits is not None and limits.models is not None
    text = client.text_with_model if client.text_with_model and is_limited else client.text
    if client.model:
        # Not the beginning of another model's id, nor the end of one.
        usual = rf"(?<![\w.-]){re.escape(client.model)}(?![\w.-])"
        text = re.sub(usual, lambda _: model, text)
    return client._replace(text=text)


def _allowed_model(client: Client, limits: Limits | None, catalog: Catalog) -> str | None:
    """Return a model for a chat that an API key may use, best the usual one."""
    if limits is None:
        limits = Limits(id=0)
    if not limits.allows_provider(client.provider):
        return None
    if client.model and limits.allows_model(client.model):
        return client.model
    models = [each.id for each in catalog.models(client.provider) if each.mode == "chat"]
    quotable = (each for each in models if _QUOTABLE.fullmatch(each))
    return next((each for each in quotable if limits.allows_model(each)), None)
