"""What a name without a price may have meant: three models of the provider, at a bounded cost."""

import time

import pytest

from llmproxy.catalog import Catalog, Model
from llmproxy.catalog_nearest import Nearest, find_nearest
from llmproxy.catalog_parser import load_catalog
from tests.support.catalogs import entry, parse


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return load_catalog(None)


def nearest(catalog: Catalog, provider: str, name: str) -> tuple[list[str], list[str]]:
    found = find_nearest(catalog, provider, name, lambda model: True)
    return ids(found.here), [f"{model.provider}/{model.id}" for model in found.elsewhere]


def ids(models: list[Model]) -> list[str]:
    return [model.id for model in models]


@pytest.mark.parametrize(
    ("provider", "name", "first"),
    [
        ("openai", "GPT-4o", "gpt-4o"),
        ("openai", "gpt-4-o", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-07", "gpt-4o"),  # like an alias of it
        ("openai", "openai/gpt-4o", "gpt-4o"),
        ("anthropic", "Claude-Sonnet-5.5", "claude-sonnet-5-5"),
        ("gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gemini", "Models/Gemini-2.5-Pro-x", "gemini-2.5-pro"),
    ],
)
def test_what_was_meant_comes_first(shipped: Catalog, provider: str, name: str, first: str) -> None:
    here, elsewhere = nearest(shipped, provider, name)
    assert (here[0], len(here), len(set(here)), elsewhere) == (first, 3, 3, [])
    assert all(shipped.find(provider, each) for each in here)


@pytest.mark.parametrize("name", ["", "f", "foo", "sonar", "zzzzzzzz", "x" * 1_000_000, "é🙂"])
def test_there_are_always_three(shipped: Catalog, name: str) -> None:
    assert len(set(nearest(shipped, "openai", name)[0])) == 3


def test_a_part_of_a_name_finds_those_that_have_it(shipped: Catalog) -> None:
    assert all("sonnet" in each for each in nearest(shipped, "anthropic", "sonnet")[0])
    assert all("gemini" in each for each in nearest(shipped, "gemini", "gemini-9")[0])


def test_other_providers_are_named_for_exactly_this_name() -> None:
    catalog = parse(
        {
            "openai/a": entry(aliases=["a-2"]),
            "groq/openai/a": entry(),
            "groq/b": entry(),
            "xai/openai/a": entry(),
        }
    )
    assert nearest(catalog, "groq", "A") == (["openai/a", "b"], ["openai/a"])
    assert nearest(catalog, "mistral", "openai/a") == (
        [],
        ["groq/openai/a", "openai/a", "xai/openai/a"],
    )
    assert nearest(catalog, "mistral", "openai/a-2") == ([], ["openai/a"])
    assert nearest(catalog, "mistral", "openai/a:online") == ([], [])


def test_only_models_that_may_be_used_are_named(shipped: Catalog) -> None:
    def is_allowed(model: Model) -> bool:
        return model.id in {"gpt-4o-mini", "gpt-5"}

    def find(provider: str, name: str) -> Nearest:
        return find_nearest(shipped, provider, name, is_allowed)

    assert ids(find("openai", "gpt-4").here) == ["gpt-5", "gpt-4o-mini"]
    assert find("anthropic", "gpt-4o") == ([], [])
    assert ids(find("anthropic", "gpt-5").elsewhere) == ["gpt-5"]


@pytest.mark.parametrize("name", ["gpt-4o-" * 100_000, "-" * 100, "g" * 1_000_000, "gpt-4-o"])
def test_an_unknown_name_costs_little_however_long_it_is(shipped: Catalog, name: str) -> None:
    nearest(shipped, "openai", name)
    took = []
    for _ in range(5):
        before = time.process_time()
        nearest(shipped, "openai", name)
        took.append(time.process_time() - before)
    assert min(took) < 0.01  # some 0.5 to 1.5 ms
