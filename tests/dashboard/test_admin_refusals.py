"""What an operator's page refuses is told without the command that does the same."""

import re
from html import unescape

from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import assert_sound
from tests.dashboard.test_admin_users import USERS, page_of


def problem(boss: Visitor, path: str, **fields: str) -> str:
    """What stands above a form that was refused."""
    answer = boss.submit(path, **fields)
    assert answer.status_code == 422
    assert_sound(answer)
    (told,) = re.findall(r'<p class="problem" role="alert">(.*?)</p>', answer.text)
    return unescape(told)


def test_a_credit_of_nothing_is_told_alike_of_a_new_user_and_of_one_that_is_there(
    desk: Desk,
) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    told = "A credit must be above zero; to take money back, correct the balance."
    for amount in ("0", "-0.00"):
        assert problem(boss, USERS, name="eda", credit=amount) == told
        add = f"{page_of(desk, ann.name)}/credit"
        assert problem(boss, add, amount=amount, once="page-1") == told
    assert problem(boss, USERS, name="eda", credit="-1") == told


def test_a_name_that_is_taken_names_no_command(desk: Desk) -> None:
    boss = desk.operator()
    assert problem(boss, USERS, name=boss.name) == f"User {boss.name} exists already."
