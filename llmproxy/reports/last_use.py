"""Owns when API keys were last used, by the sums of days: those outlive pruned requests."""

from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import Tx


def last_used_days(tx: Tx, user_id: int) -> dict[int, int]:
    """Return the start (ms) of the day on which each API key of a user was last used, by its id.

    Keys that never were are left out; running requests do not count yet, refused ones do.
    """
    rows = tx.execute(
        "SELECT api_key_id, max(day) FROM requests_by_day WHERE user_id = ? GROUP BY api_key_id",
        (user_id,),
    )
    return {row[0]: row[1] * DAY_MS for row in rows}
