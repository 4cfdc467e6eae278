"""A log that is sent from its beginning again and again, shown once."""

from cluster.follow import Shown


def test_what_was_shown_is_not_shown_again() -> None:
    parts: list[str] = []
    shown = Shown(parts.append)
    shown.part("one\ntw", 0)
    shown.part("o\n", 6)
    shown.part("one\n", 0)  # the connection dropped, and the log begins anew, in other parts
    shown.part("two\nthree\n", 4)
    shown.part("one\ntwo\nthree\n", 0)
    assert "".join(parts) == "one\ntwo\nthree\n"
