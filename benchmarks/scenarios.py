"""What can be measured: the loads, and the measurements that are more than one load."""

from typing import NamedTuple

PROMPT_BYTES = 100
OPEN_CONNECTIONS = 1000


class Shape(NamedTuple):
    """How a load asks.

    With a rate it is an open loop: so many requests start each second, whatever becomes of the
    earlier ones, on at most so many connections. Without, it is a closed one: each connection sends
    its next request when the answer to its last one is complete, and begins within `ramp_s`.
    """

    kind: str = "chat"
    connections: int = 32
    rate_per_s: int = 0
    prompt_bytes: int = PROMPT_BYTES
    is_stream: bool = False
    user: str = ""
    ramp_s: float = 0.0
    status: int = 200


class Scenario(NamedTuple):
    """One load with its name. `key` says whose: the rich user's, the poor one's, or a wrong one."""

    name: str
    about: str
    shape: Shape
    key: str = "rich"
    for_peers: bool = False

    @property
    def reaches_provider(self) -> bool:
        """Whether its requests reach the provider, and so can be compared with direct ones."""
        return self.key == "rich"


SCENARIOS = (
    Scenario("plain-1", "1 connection", Shape(connections=1), for_peers=True),
    Scenario("plain-32", "32 connections", Shape(), for_peers=True),
    Scenario("plain-256", "256 connections", Shape(connections=256), for_peers=True),
    Scenario("streams", "32 streams of 20 events, no gaps", Shape(is_stream=True), for_peers=True),
    Scenario(
        "gaps-100",
        "100 streams, 20 ms between events",
        Shape(connections=100, is_stream=True, user="gap_ms=20", ramp_s=0.4),
        for_peers=True,
    ),
    Scenario(
        "gaps-1000",
        "1,000 streams, 20 ms between events",
        Shape(connections=1000, is_stream=True, user="gap_ms=20", ramp_s=0.4),
        for_peers=True,
    ),
    Scenario("prompt-100k", "prompts of 100 KB", Shape(prompt_bytes=100_000)),
    Scenario("prompt-1m", "prompts of 1 MB", Shape(connections=8, prompt_bytes=1_000_000)),
    Scenario("answer-100k", "answers of 100 KB", Shape(user="answer_bytes=100000")),
    Scenario("embeddings", "an input, 1,536 numbers back", Shape(kind="embeddings")),
    Scenario("402-storm", "a user without enough credit", Shape(status=402), key="poor"),
    Scenario("wrong-key-storm", "a key that nobody has", Shape(status=401), key="wrong"),
    Scenario(
        "open-plain",
        "500 a second, open loop",
        Shape(connections=OPEN_CONNECTIONS, rate_per_s=500),
        for_peers=True,
    ),
    Scenario(
        "open-streams",
        "100 streams a second, open loop",
        Shape(connections=OPEN_CONNECTIONS, rate_per_s=100, is_stream=True),
    ),
)

TLS_SCENARIOS = (
    Scenario("tls-32", "32 connections, a provider that speaks TLS", Shape()),
    Scenario("tls-streams", "32 streams, a provider that speaks TLS", Shape(is_stream=True)),
)
"""Measured through llmproxy only, beside the same ones without TLS."""

PLAIN = SCENARIOS[1]
"""32 connections: what is measured again under other conditions."""

LEDGERS = {"ledger-0": 0, "ledger-1m": 1_000_000, "ledger-10m": 10_000_000}
"""Rows of the ledger under which 32 connections are measured, by name."""

OTHERS = {
    "ledger-0": "32 connections on an empty ledger",
    "ledger-1m": "32 connections on a ledger of 1,000,000 rows",
    "ledger-10m": "32 connections on a ledger of 10,000,000 rows (some 10 GB of disk)",
    "memory": "resident memory over many requests (--requests)",
    "start": "from `llmproxy serve` to the first answer of /readyz",
    "help": "`llmproxy --help`",
}

BY_NAME_ONLY = frozenset({"ledger-10m"})
"""What is not measured unless it is named: it takes many minutes."""

NAMES = tuple([scenario.name for scenario in SCENARIOS + TLS_SCENARIOS] + list(OTHERS))
DEFAULT = tuple(name for name in NAMES if name not in BY_NAME_ONLY)


def about(name: str) -> str:
    """Return what a scenario is, in words."""
    found = {scenario.name: scenario.about for scenario in SCENARIOS + TLS_SCENARIOS}
    return found.get(name) or OTHERS[name]
