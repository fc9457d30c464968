"""What a seed draws, before anything runs: who asks what and when, and everything that goes wrong.

Each world has only some kinds of trouble, so that they do not always drown one another.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulator.answers import Manners
from tests.simulator.disk import FULL, KEPT, LOST

KINDS_OF_TROUBLE = (
    *("odd usage", "broken answers", "split answers", "slow answers", "endless answers"),
    *("dishonest provider", "refusals", "clients leave", "slow clients", "slow bodies"),
    *("cancelled tasks", "slow disk", "full disk", "failing disk", "foreign writer", "bad jobs"),
    *("crashes", "stops", "clock steps", "operator", "many at once"),
)


class Person(NamedTuple):
    """A user at the beginning."""

    name: str
    credit_nanousd: int
    multiplier_micro: int


@dataclass
class Reply:
    """What becomes of one attempt at a provider."""

    kind: str
    """`answer`, `error`, `refused` (nothing was sent), `dropped` (sent, no answer), `silent`."""
    delay_s: float
    seed: int
    status: int = 200
    code: str = ""


@dataclass
class Client:
    """How a client behaves."""

    body_pieces: int = 1
    body_gap_s: float = 0.0
    leaves_in_body: bool = False
    leaves_after_s: float | None = None
    """After the request has come in; whatever it has got by then."""
    leaves_after_bytes: int | None = None
    read_s: float = 0.0
    """How long it takes to read what it gets before it takes more; 99 for ever."""


@dataclass
class Ask:
    """One request."""

    number: int
    at_s: float
    person: int
    dialect: str
    body: bytes
    model: str
    is_stream: bool
    output_max: int | None
    asks_usage: bool
    clamps: bool
    client: Client
    replies: list[Reply]
    cancelled_at: int | None = None
    """At which of its awaits its task is cancelled."""
    is_free: bool = False


class Act(NamedTuple):
    """Something that the operator does."""

    at_s: float
    kind: str
    person: int
    amount: int
    takes_s: float = 0.0
    """How long its transaction stays open."""


@dataclass
class Life:
    """One life of the serving process."""

    asks: list[Ask]
    acts: list[Act] = field(default_factory=list)
    crash_at_step: int | None = None
    stop_at_s: float | None = None
    disk_faults: dict[int, str] = field(default_factory=dict)
    bad_jobs_at_s: list[float] = field(default_factory=list)
    clock_steps: list[tuple[float, int]] = field(default_factory=list)
    """When, and by how many milliseconds."""


@dataclass
class Plan:
    """One world."""

    seed: int
    troubles: set[str]
    people: list[Person]
    lives: list[Life]
    manners: Manners
    hold_stream_output_tokens: int
    drains_max: int
    is_disk_slow: bool


def draw(seed: int) -> Plan:
    """Return the world of a seed."""
    rng = random.Random(seed)
    troubles = set(rng.sample(KINDS_OF_TROUBLE, rng.randint(0, 7)))
    people = [
        Person(f"user{number}", int(10 ** rng.uniform(6, 9.3)), rng.choice((1_000_000, 1_234_567)))
        for number in range(rng.randint(1, 3))
    ]
    deaths = {"crashes", "stops", "failing disk"} & troubles
    lives_count = rng.randint(2, 3) if deaths else 1
    plan = Plan(
        seed=seed,
        troubles=troubles,
        people=people,
        lives=[],
        manners=Manners(
            odd_usage="odd usage" in troubles,
            breaks_off="broken answers" in troubles,
            splits="split answers" in troubles,
            is_slow="slow answers" in troubles,
            is_endless="endless answers" in troubles,
            is_dishonest="dishonest provider" in troubles,
        ),
        hold_stream_output_tokens=rng.choice((16, 64, 64, 256, 4096)),
        drains_max=rng.choice((1, 2, 64)),
        is_disk_slow="slow disk" in troubles,
    )
    number = 0
    for index in range(lives_count):
        life = _draw_life(rng, plan, number, is_last=index == lives_count - 1)
        number += len(life.asks)
        plan.lives.append(life)
    return plan


def _draw_life(rng: random.Random, plan: Plan, first: int, *, is_last: bool) -> Life:
    troubles = plan.troubles
    count = rng.randint(4, 8) if "many at once" in troubles else rng.randint(1, 4)
    span_s = 0.0 if "many at once" in troubles else rng.choice((0.01, 1.0, 6.0))
    asks = [
        _draw_ask(rng, plan, first + number, rng.uniform(0.0, span_s)) for number in range(count)
    ]
    life = Life(asks)
    if "operator" in troubles:
        life.acts += [
            Act(
                rng.uniform(0.0, span_s + 1.0),
                rng.choice(ACTS),
                rng.randrange(len(plan.people)),
                int(10 ** rng.uniform(4, 9)),
            )
            for _ in range(rng.randint(1, 5))
        ]
    if "foreign writer" in troubles:
        life.acts += [
            Act(
                rng.uniform(0.0, span_s),
                "credit",
                0,
                1000,
                rng.choice((0.003, 0.003, 0.02, 0.02, 0.3, 5.5)),
            )
            for _ in range(rng.randint(1, 2))
        ]
    if "full disk" in troubles:
        life.disk_faults |= {rng.randint(1, 15): FULL for _ in range(rng.randint(1, 4))}
    if "failing disk" in troubles and not is_last:
        life.disk_faults[rng.randint(1, 12)] = rng.choice((LOST, KEPT))
    if "bad jobs" in troubles:
        life.bad_jobs_at_s = [rng.uniform(0.0, span_s) for _ in range(rng.randint(1, 3))]
    if "clock steps" in troubles:
        life.clock_steps = [
            (rng.uniform(0.0, span_s + 1), rng.choice((-86_400_000, -3_000, 2_000, 3_700_000)))
            for _ in range(rng.randint(1, 3))
        ]
    if "crashes" in troubles and not is_last:
        life.crash_at_step = int(10 ** rng.uniform(0.5, 2.6))
    elif "stops" in troubles:
        life.stop_at_s = rng.uniform(0.0, span_s + 2.0)
    return life


ACTS = (
    *("credit", "credit", "credit again", "adjust up", "adjust down", "adjust down"),
    *("disable", "enable", "enable", "multiplier", "price", "price"),
    *("pause", "resume", "resume", "key off", "key on", "rotate"),
)


def _draw_ask(rng: random.Random, plan: Plan, number: int, at_s: float) -> Ask:
    troubles = plan.troubles
    model = rng.choice(("sim-mini", "sim-mini", "sim-think", "sim-claude", "sim-claude"))
    dialect = "anthropic" if model == "sim-claude" else "openai"
    is_free = dialect == "anthropic" and rng.random() < 0.05
    is_stream = not is_free and rng.random() < 0.7
    output_max = rng.choice((None, 1, 30, 300, 1000, 2000, 20_000))
    asks_usage = dialect == "openai" and is_stream and rng.random() < 0.3
    text = "x" * rng.choice((1, 100, 2000))
    fields: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if is_stream:
        fields["stream"] = True
    if output_max is not None:
        member = "max_tokens" if dialect == "anthropic" else rng.choice(_MEMBERS)
        fields[member] = output_max
    if asks_usage:
        fields["stream_options"] = {"include_usage": True}
    ask = Ask(
        number=number,
        at_s=at_s,
        person=rng.randrange(len(plan.people)),
        dialect=dialect,
        body=json.dumps(fields).encode(),
        model=model,
        is_stream=is_stream,
        output_max=output_max,
        asks_usage=asks_usage,
        clamps=rng.random() < 0.3,
        client=_draw_client(rng, troubles),
        replies=_draw_replies(rng, troubles),
        is_free=is_free,
    )
    if "cancelled tasks" in troubles and rng.random() < 0.7:
        ask.cancelled_at = rng.randint(1, 12)
    return ask


_MEMBERS = ("max_tokens", "max_completion_tokens")


def _draw_client(rng: random.Random, troubles: set[str]) -> Client:
    client = Client()
    if "slow bodies" in troubles and rng.random() < 0.6:
        client.body_pieces = rng.randint(1, 4)
        client.body_gap_s = rng.choice((0.0, 0.3, 9.0))
        client.leaves_in_body = rng.random() < 0.3
    if "clients leave" in troubles and rng.random() < 0.8:
        if rng.random() < 0.5:
            client.leaves_after_s = rng.choice((0.0, 0.0005, 0.002, 0.02, 0.3, 2.0))
        else:
            client.leaves_after_bytes = rng.choice((0, 1, 200, 1500))
    if "slow clients" in troubles and rng.random() < 0.7:
        client.read_s = rng.choice((0.0005, 0.05, 0.7, 99.0))
    return client


_REFUSALS = (
    *((401, "invalid_api_key"), (429, "rate_limit_exceeded"), (429, "insufficient_quota")),
    *(
        (400, "invalid_value"),
        (500, "server_error"),
        (503, "overloaded"),
        (302, "moved"),
        (199, ""),
    ),
)


def _draw_replies(rng: random.Random, troubles: set[str]) -> list[Reply]:
    replies = []
    delays: tuple[float, ...] = (0.0, 0.001, 0.05)
    if "slow answers" in troubles:
        delays = (0.0, 0.3, 5.0)
    for _ in range(3):
        reply = Reply("answer", rng.choice(delays), rng.getrandbits(32))
        if "refusals" in troubles and rng.random() < 0.6:
            reply.kind = rng.choice(("error", "error", "error", "refused", "dropped", "silent"))
            reply.status, reply.code = rng.choice(_REFUSALS)
        replies.append(reply)
    return replies
