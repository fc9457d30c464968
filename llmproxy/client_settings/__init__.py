"""Owns the settings with which each known client uses this server. Pure.

The dashboard's page of a new key, the guide (docs/clients.md is made of them) and the command
`clients show` all take them from here.
"""

from llmproxy.client_settings.choice import check_address, clients, find_client
from llmproxy.client_settings.client import BASE_URL, KEY, KEY_VARIABLE, Client, Setting
from llmproxy.client_settings.filling import allowed_settings, setting_of

__all__ = (
    "BASE_URL",
    "KEY",
    "KEY_VARIABLE",
    "Client",
    "Setting",
    "allowed_settings",
    "check_address",
    "clients",
    "find_client",
    "setting_of",
)
