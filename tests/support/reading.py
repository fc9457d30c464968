"""What tests of dialects ask of an endpoint: a refusal, the one leg of a reading, a stream read."""

import json

import pytest

from llmproxy.dialects.base import Endpoint, Reading
from llmproxy.errors import ApiError
from llmproxy.usage import Leg


def refusal_of(endpoint: Endpoint, body: bytes, dialect: str = "openai") -> ApiError:
    """The error that a body is refused with; it can be written for a client of the dialect."""
    with pytest.raises(ApiError) as caught:
        endpoint.read_request(body)
    assert caught.value.status == 400
    caught.value.body("req_1", dialect)
    return caught.value


def only_leg(reading: Reading) -> Leg:
    """The leg of a reading that is final and has no other."""
    assert (reading.is_final, reading.problem) == (True, None)
    assert reading.usage is not None
    (leg,) = reading.usage.legs
    return leg


def read_events(endpoint: Endpoint, *data: object) -> Reading:
    """What is read of a stream of events with these data."""
    reader = endpoint.stream_reader(withholds_usage=False)
    for one in data:
        reader.events.feed(f"data: {json.dumps(one)}\n\n".encode())
    return reader.reading()
