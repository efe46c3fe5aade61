from typing import TYPE_CHECKING

import pytest

from foretaste.errors import UsageError
from foretaste.inspectors import INSPECTORS, inspect
from foretaste.inspectors import combined as module
from foretaste.inspectors.debackdoor import DeBackdoor
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.inspectors.conftest import Quarters


def test_those_that_apply_are_asked_under_one_rate(
    quarters: "Quarters", clean: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = DeBackdoor(explore=64, steps=40, largest=0.2)
    monkeypatch.setattr(module, "DeBackdoor", lambda: quick)
    together = inspect(quarters, clean, method="all", seed=0)
    alone = inspect(quarters, clean, method="debackdoor", seed=0, explore=64, steps=40, largest=0.2)
    assert together.suspect_classes == alone.suspect_classes
    assert together.p_value == alone.p_value  # one method applies, so there is nothing to share
    assert together.evidence[0].reason == f"debackdoor: {alone.evidence[0].reason}"
    assert [note.split(" was ")[0] for note in together.notes] == ["mm-bd", "neural-cleanse"]


def test_without_weights_and_clean_images_none_applies(quarters: "Quarters") -> None:
    with pytest.raises(UsageError, match=r"no inspector applies; .*debackdoor was left out: it needs 40 clean images"):
        inspect(quarters, method="all")


def test_it_is_the_one_that_is_asked_unless_told_otherwise() -> None:
    assert INSPECTORS["all"].name == "all"
