"""The style sheet says each thing once: a rule that is changed is not undone further down."""

import re
from collections import Counter

from llmproxy.dashboard.site import STATIC


def selectors(css: str) -> list[str]:
    """The selectors of all rules but those for some media only, whose purpose is to differ."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    everywhere = re.sub(r"@media[^{]*{(?:[^{}]*{[^{}]*})*[^{}]*}", "", css)
    return [" ".join(each.split()) for each in re.findall(r"([^{}]+){[^{}]*}", everywhere)]


def test_no_rule_stands_twice() -> None:
    found = Counter(selectors((STATIC / "style.css").read_text("utf-8")))
    assert len(found) > 150
    assert [selector for selector, count in found.items() if count > 1] == []
