import pytest

from foretaste.cli.gate import Gate
from foretaste.errors import UsageError


@pytest.mark.parametrize(
    ("fail_on", "found", "n_flagged", "code"),
    [
        ("never", True, 100, 0),
        ("found", True, 1, 1),
        ("found", False, 0, 0),
        ("0.05", True, 4, 0),
        ("0.05", True, 5, 1),
        ("5%", True, 5, 1),
        ("5%", True, 4, 0),
        ("1", True, 99, 0),
        ("100%", True, 100, 1),
        ("0.001", False, 3, 0),  # flagged, but no more than false alarms explain
    ],
)
def test_the_policy_decides(fail_on: str, found: bool, n_flagged: int, code: int) -> None:
    assert Gate.parse(fail_on).exit_code({"found": found}, n_flagged, 100) == code


def test_as_many_as_the_share_are_enough() -> None:
    for tenths in range(1, 1001):
        gate = Gate.parse(f"{tenths / 10}%")
        assert [gate.exit_code({"found": True}, n, 1000) for n in (tenths - 1, tenths)] == [0, 1]


def test_a_command_may_know_more_levels() -> None:
    gate = Gate.parse("warning", ("never", "found", "warning"))
    assert gate.exit_code({"found": False, "warning": True}, 0, 10) == 1
    with pytest.raises(UsageError, match="--fail-on takes never, found, or a share above 0 and up to 1"):
        Gate.parse("warning")


@pytest.mark.parametrize(
    "text", ["", "0", "-0.1", "1.1", "101%", "nan", "snan", "inf", "%", "some", "1e999999999", "7%%"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f", not {text}$"):
        Gate.parse(text)


def test_nothing_of_nothing_is_not_found() -> None:
    assert Gate.parse("0.5").exit_code({"found": False}, 0, 0) == 0
