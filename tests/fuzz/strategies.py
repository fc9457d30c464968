"""What the fuzzing has in common: how much of it, and how bytes are cut."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

THOROUGH = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """Sorted positions at which bytes of a length are cut."""
    inside = st.integers(0, length)
    return sorted(draw(st.lists(inside, max_size=12)))


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    """The pieces of data that is cut there; some may be empty."""
    return [
        data[start:end] for start, end in zip([0, *positions], [*positions, len(data)], strict=True)
    ]
