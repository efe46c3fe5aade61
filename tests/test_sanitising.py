import pytest
from pydantic import TypeAdapter, ValidationError

from foretaste.sanitising import described, printable, public_address, reason, shown


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Käse 猫\u3000a\u00a0b", "Käse 猫\u3000a\u00a0b"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("two\nlines\u2028three", "two\\nlines\\u2028three"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udc80", "\\udc80"),
    ],
)
def test_names_keep_their_letters_and_lose_what_controls_a_terminal(name: str, safe: str) -> None:
    assert printable(name) == safe


def test_of_a_long_text_both_ends_are_shown() -> None:
    text = shown("the file " + "x" * 1000 + " is broken:\n no space")
    assert text.startswith("the file xxx")
    assert text.endswith("x is broken: no space")
    assert len(text) == 200


def test_errors_are_told_by_their_reason() -> None:
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(ValueError("\n  first\nsecond")) == "first"
    assert reason(ValueError()) == "ValueError"
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, int]).validate_python({"rate": "high"})
    assert reason(caught.value).startswith("rate: Input should be a valid integer")
    assert described(ValueError("a\nb")) == "ValueError: a"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("https://me:word@host:8080/a/set.parquet?X-Signature=s#part", "https://host:8080/a/set.parquet"),
        ("s3://bucket/set and https://host/b?key=1 came", "s3://bucket/set and https://host/b came"),
        ("hf://datasets/people/photos@main/data", "hf://datasets/people/photos@main/data"),
        ("data/what?.parquet", "data/what?.parquet"),
    ],
)
def test_addresses_lose_what_may_be_secret(text: str, public: str) -> None:
    assert public_address(text) == public
