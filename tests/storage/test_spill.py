"""The spill's bytes: what is torn or damaged costs nothing else, and its room stays."""

from pathlib import Path

import pytest

from llmproxy.errors import DatabaseError
from llmproxy.storage.spill import ROOM_BYTES, Spill, read_spill

RECORDS = [b'{"number":%d}' % number for number in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmproxy.db.spill"


def fill(path: Path) -> bytes:
    """Write three records and close; return the bytes that were written."""
    spill = Spill(path)
    for record in RECORDS:
        spill.append(record)
    spill.sync()
    spill.close()
    return path.read_bytes().rstrip(b"\0")


def test_records_are_read_in_order_by_whoever_comes(path: Path) -> None:
    assert read_spill(path) == ([], 0)
    fill(path)
    assert read_spill(path) == (RECORDS, 0)
    spill = Spill(path)
    assert spill.read() == (RECORDS, 0)
    spill.append(b"later")
    assert spill.read() == ([*RECORDS, b"later"], 0)
    spill.close()


def test_a_record_torn_anywhere_costs_itself_alone_also_when_more_is_added(path: Path) -> None:
    whole = fill(path)
    third = whole.rindex(b"\n", 0, -1)
    for end in range(third + 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        spill = Spill(path)
        spill.append(b"later")
        spill.close()
        assert read_spill(path) == ([*RECORDS[:2], b"later"], 1), end


def test_any_damaged_byte_costs_at_most_the_two_lines_beside_it(path: Path) -> None:
    whole = fill(path)
    for place in range(len(whole)):
        for byte in (0, 0xFF, ord("\n")):
            if whole[place] == byte:
                continue
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            records, _ = read_spill(path)
            assert set(records) <= set(RECORDS)
            assert len(records) >= 1, place


def test_garbage_is_no_record(path: Path) -> None:
    path.write_bytes(b"\xff\xfe garbage \n\n 00000000 \n" + b"\0" * 5000 + b"more")
    assert read_spill(path) == ([], 3)


def test_emptied_it_keeps_its_room_and_half_emptied_it_can_be_read(path: Path) -> None:
    whole = fill(path)
    path.write_bytes(whole.ljust(ROOM_BYTES + 100, b"\0"))
    spill = Spill(path)
    spill.clear()
    assert spill.read() == ([], 0)
    found = path.stat()
    assert found.st_size == ROOM_BYTES <= found.st_blocks * 512
    spill.append(b"later")
    assert spill.read() == ([b"later"], 0)
    spill.close()
    half = whole.index(b"1}")  # what a crash may leave of `clear`
    path.write_bytes(b"\0" * half + whole[half:])
    assert read_spill(path) == (RECORDS[2:], 1)


def test_set_aside_it_begins_anew(path: Path) -> None:
    whole = fill(path)
    spill, aside = Spill(path), path.with_name("aside")
    spill.set_aside(aside)
    assert aside.read_bytes() == whole
    spill.append(b"later")
    assert read_spill(path) == ([b"later"], 0)
    assert path.stat().st_size == ROOM_BYTES
    spill.close()


def test_more_than_its_room_is_taken_while_there_is_some_on_the_disk(path: Path) -> None:
    spill, record = Spill(path), b"x" * 1_000_000
    for _ in range(5):
        spill.append(record)
    assert spill.read() == ([record] * 5, 0)
    spill.clear()
    assert path.stat().st_size == ROOM_BYTES
    spill.close()


def test_where_it_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"nowhere/spill, where settlements are kept .* 4 MB"):
        Spill(tmp_path / "nowhere" / "spill")
