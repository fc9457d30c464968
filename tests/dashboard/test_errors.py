"""Pages of errors: whoever is signed in still is."""

from tests.dashboard.helpers import Desk


def test_an_error_shows_who_is_signed_in(desk: Desk) -> None:
    ann, nobody = desk.signed_in(), desk.visitor()
    for path, status in (
        ("/dashboard/requests/1", 404),
        ("/dashboard/admin", 403),
    ):
        answer = ann.get(path)
        assert answer.status_code == status
        assert f'title="Signed in as {ann.name}"' in answer.text, path
        assert ">Sign in<" not in answer.text
    assert ">Sign in<" in nobody.get("/dashboard/nothing").text
    # Whose the cookie is was not looked up here: neither is said.
    for path in ("/dashboard/sign-in/used-long-ago", "/dashboard/nothing", "/dashboard/live/x"):
        answer = ann.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert ">Sign in<" not in answer.text
        assert ">Sign in<" in nobody.get(path).text
