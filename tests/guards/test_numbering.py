import numpy as np
import pytest

from foretaste.errors import UsageError
from foretaste.guards.scan import numbering
from foretaste.samples import Samples, renumbered


def of_classes(*classes: str) -> Samples:
    """One sample of each class."""
    return Samples.from_arrays(np.zeros((len(classes), 2, 2, 1), dtype=np.uint8), np.arange(len(classes)), classes)


def test_the_models_names_rule() -> None:
    assert numbering(("stop", "yield"), of_classes("0", "1")) == ("stop", "yield")


def test_without_them_numbers_are_numbers_whatever_their_order_and_gaps() -> None:
    assert numbering(None, of_classes("0", "10", "2")) == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
    assert numbering(None, of_classes("00000", "00002")) == ("00000", "1", "00002")
    text = of_classes("0", "10", "2")
    assert renumbered(text, numbering(None, text), "clean").labels.tolist() == [0, 10, 2]


@pytest.mark.parametrize("classes", [("0", "one"), ("1", "01"), ("0", "9999999999")])
def test_what_are_not_all_numbers_keeps_its_order(classes: tuple[str, ...]) -> None:
    assert numbering(None, of_classes(*classes)) == classes


def test_a_number_may_be_written_with_zeros() -> None:
    assert renumbered(of_classes("00001", "2"), ("a", "b", "c"), "inputs").labels.tolist() == [1, 2]
    with pytest.raises(UsageError, match="inputs: the model has no class 00003"):
        renumbered(of_classes("00001", "00003"), ("a", "b", "c"), "inputs")
