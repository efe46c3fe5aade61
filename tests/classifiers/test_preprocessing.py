import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.classifiers.class_names import read_class_names
from foretaste.classifiers.layout import Declared, Layout
from foretaste.classifiers.preprocessing import CONVENTIONS, Preprocessing, conventions, from_metadata
from foretaste.classifiers.python_callable import PythonCallable
from foretaste.errors import ForetasteError, UsageError

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3) * 10


def test_pixels_are_scaled_shifted_and_divided_in_the_models_order_of_channels() -> None:
    way = Preprocessing(scale=255, mean=(1, 2, 3), std=(1, 2, 4), channels="bgr")
    expected = (IMAGES[..., ::-1].astype(np.float64) - [1, 2, 3]) / [1, 2, 4]
    np.testing.assert_allclose(way.apply(IMAGES), expected, rtol=1e-5)
    assert way.apply(IMAGES).dtype == np.float32


def test_without_anything_said_floats_are_exactly_a_255th() -> None:
    np.testing.assert_array_equal(Preprocessing().apply(IMAGES), IMAGES.astype(np.float32) / np.float32(255))
    assert not Preprocessing(channels="bgr").rescales
    assert Preprocessing(scale=255).rescales


def test_a_layout_packs_what_its_preprocessing_makes() -> None:
    layout = Layout.of([Declared("x", np.dtype(np.float32), (None, 3, 2, 2))], "it")
    way = Preprocessing(mean=(0.5,), std=(0.5,))
    packed = layout.preprocessed(way).pack(IMAGES)
    assert packed.flags.c_contiguous
    np.testing.assert_allclose(packed, IMAGES.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert layout.preprocessed(None) is layout


def test_a_model_that_takes_pixels_as_they_are_has_its_colours_turned_but_nothing_scaled() -> None:
    layout = Layout.of([Declared("x", np.dtype(np.uint8), (None, 2, 2, 3))], "it")
    np.testing.assert_array_equal(layout.preprocessed(Preprocessing(channels="bgr")).pack(IMAGES), IMAGES[..., ::-1])
    with pytest.raises(UsageError, match="takes the pixels as they are"):
        layout.preprocessed(Preprocessing(scale=255))


@pytest.mark.parametrize(
    "fields", [{"scale": 0.0}, {"scale": float("inf")}, {"mean": (1.0, 2.0)}, {"std": (0.0,)}, {"channels": "rbg"}]
)
def test_values_out_of_range_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Preprocessing(**fields)  # type: ignore[arg-type]


def test_numbers_per_channel_are_refused_for_grey_images() -> None:
    with pytest.raises(UsageError, match="3 channels, and the images have 1"):
        Preprocessing(mean=(0.4, 0.4, 0.4)).apply(IMAGES[..., :1])


def test_grey_images_have_no_order_of_colours_to_try() -> None:
    assert set(conventions(3)) == set(CONVENTIONS)
    assert set(conventions(1)) == {"0 to 1", "0 to 255", "−1 to 1", "MNIST's mean and deviation"}


def test_the_options_ask_for_the_same() -> None:
    assert Preprocessing(scale=255, channels="bgr").options == "--scale 255 --channels bgr"
    assert Preprocessing(mean=(0.5, 0.25, 0)).options == "--mean 0.5,0.25,0"


def test_a_model_file_may_say_it_itself() -> None:
    assert from_metadata(None, "m") is None
    said = from_metadata(json.dumps({"mean": [0.5], "std": [0.5], "channels": "bgr"}), "m")
    assert said == Preprocessing(mean=(0.5,), std=(0.5,), channels="bgr")
    for text in ("no JSON", "[]", '{"std": [0]}', '{"channels": "xyz"}'):
        with pytest.raises(ForetasteError, match='m: the metadata key "preprocessing" is damaged'):
            from_metadata(text, "m")


def test_a_function_gets_pixels_or_what_is_asked_for() -> None:
    given = []

    def function(images: NDArray[Any]) -> list[int]:
        given.append(images)
        return [0] * len(images)

    bare = PythonCallable(function)
    bare.classify(IMAGES)
    bare.preprocessed(Preprocessing(scale=255)).classify(IMAGES)
    np.testing.assert_array_equal(given[0], IMAGES)
    assert given[0].dtype == np.uint8
    np.testing.assert_array_equal(given[1], IMAGES.astype(np.float32))
    assert PythonCallable(function, classes=("a", "b")).classes == ("a", "b")


def test_class_names_come_one_a_line_or_as_json(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("stop\ngive way\n\n")
    assert read_class_names(path) == ("stop", "give way")
    path.write_text('["stop", "give way"]')
    assert read_class_names(path) == ("stop", "give way")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("one\n", "holds 1 class names"), ("a\n\nb\n", "none may be empty"), ("a\nb\na\n", "names the class a twice")],
)
def test_what_are_no_class_names(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "names"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        read_class_names(path)
    with pytest.raises(UsageError, match="cannot read class names"):
        read_class_names(tmp_path / "nowhere")
