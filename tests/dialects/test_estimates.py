"""What the estimate is made of when a provider reported no usage to the end."""

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Reading, estimated
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.usage import Leg, Movers, Usage


def test_an_estimate_without_any_report_keeps_what_the_answer_said_of_its_price() -> None:
    reader = OpenAIChat().stream_reader(withholds_usage=False)
    reader.events.feed(
        b'data: {"model":"m","service_tier":"priority","choices":[{"delta":{"content":"abc"}}]}\n\n'
    )
    reading = reader.reading()
    assert reading.movers == Movers(service_tier="priority")
    assert estimated(reading, 10, 9) == Usage((Leg(input=10, output=1),), service_tier="priority")


def test_a_usage_that_is_not_trusted_still_tells_tier_speed_and_region() -> None:
    usage = b'{"output_tokens":-1,"service_tier":"standard","speed":"fast","inference_geo":"us"}'
    reading = AnthropicMessages().read_answer(b'{"content":[{"text":"abc"}],"usage":%b}' % usage)
    assert (reading.usage, reading.is_final) == (None, False)
    found = estimated(reading, 3, 100)
    assert (found.service_tier, found.speed, found.geo) == ("standard", "fast", "us")


def test_images_that_have_come_are_so_many_tokens_as_far_as_the_request_allowed() -> None:
    def output(images: int, seen_bytes: int = 4) -> int:
        return estimated(Reading(seen_bytes=seen_bytes, images=images), 0, 900, 408).legs[0].output

    assert (output(0), output(1), output(2), output(3)) == (2, 408, 816, 900)
    assert output(1, seen_bytes=1500) == 500


def test_the_estimate_of_nothing_known_moves_no_price() -> None:
    assert estimated(Reading(seen_bytes=4), 0, 9) == Usage((Leg(input=0, output=2),))
