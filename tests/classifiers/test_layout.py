from typing import Any

import numpy as np
import pytest

from foretaste.classifiers.layout import Declared, Layout, choose_output
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.errors import ForetasteError, UsageError

UINT8, FLOAT, INT = np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int64)
Shape = tuple[int | None, ...] | None


def layout(shape: Shape, dtype: np.dtype[Any] | None = UINT8) -> Layout:
    return Layout.of([Declared("x", dtype, shape)], "it")


def test_channels_last_and_first() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    for shape, sample_shape in (
        ((None, 4, 5, 3), (4, 5, 3)),
        ((None, 3, 4, 5), (4, 5, 3)),
        ((None, None, None, 3), None),
        ((None, 3, None, None), None),
    ):
        one = layout(shape)
        assert one.sample_shape == sample_shape
        one.check(images)
        packed = one.pack(images)
        assert packed.flags.c_contiguous
        np.testing.assert_array_equal(packed, images if shape[3] == 3 else images.transpose(0, 3, 1, 2))


def test_floats_are_from_0_to_1() -> None:
    images = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 3, 1)
    packed = layout((None, 1, None, None), FLOAT)
    assert packed.pack(images).dtype == np.float32
    np.testing.assert_allclose(packed.pack(images).ravel(), [0, 0.2, 1])


def test_a_fixed_batch_is_filled_up() -> None:
    images = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    one = layout((4, None, None, 3))
    assert one.pack(images)[:, 0, 0, 0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "dtype", "complaint"),
    [
        ((None, 32, 32, 3), INT, "must take uint8 or float32 images; its input is x: int64"),
        ((None, 32, 32, 3), None, "must take uint8 or float32 images; its input is x: no numbers"),
        ((None, 32, 32), UINT8, "rank 4"),
        ((None, 32, 32, 3, 1), UINT8, "rank 4"),
        (None, UINT8, "rank 4"),
        ((None, None, None, None), UINT8, r"does not make clear .* \(any, any, any, any\)"),
        ((None, 3, 9, 3), UINT8, "does not make clear"),
        ((None, 32, 32, 4), UINT8, "does not make clear"),
    ],
)
def test_inputs_that_are_no_images(shape: Shape, dtype: np.dtype[Any] | None, complaint: str) -> None:
    with pytest.raises(ForetasteError, match=f"^it .*{complaint}"):
        layout(shape, dtype)


def test_a_model_needs_one_input() -> None:
    with pytest.raises(ForetasteError, match="none that it declares"):
        Layout.of([], "it")
    with pytest.raises(ForetasteError, match="it has a, b"):
        Layout.of([Declared(name, UINT8, (None, 4, 4, 3)) for name in "ab"], "it")


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"takes images of 4×5×3 .*, not 4×5×1"):
        layout((None, 3, 4, 5)).check(np.zeros((2, 4, 5, 1), dtype=np.uint8))
    with pytest.raises(UsageError, match="takes images of any×any×3"):
        layout((None, 3, None, None)).check(np.zeros((2, 4, 5, 1), dtype=np.uint8))


def test_names_from_the_model_cannot_control_the_terminal() -> None:
    with pytest.raises(ForetasteError) as raised:
        Layout.of([Declared("\x1b[2J" * 1000, INT, None)], "it")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


def test_the_output_that_answers() -> None:
    scores, labels = Declared("scores", FLOAT, (None, 5)), Declared("labels", INT, (None,))
    other, unknown = Declared("other", FLOAT, (None, 5, 5)), Declared("unknown", FLOAT, None)
    assert choose_output([labels, scores, other], "it") is scores
    assert choose_output([other, labels], "it") is labels
    assert choose_output([unknown], "it") is unknown
    for outputs in ([scores, scores], [other, unknown], [labels, labels], []):
        with pytest.raises(ForetasteError, match="it must have one output with scores"):
            choose_output(outputs, "it")


@pytest.mark.parametrize("shape", [(None, 3, 4, 5), (None, 4, 5, 3)])
@pytest.mark.parametrize("dtype", [UINT8, FLOAT])
def test_unpack_turns_pack_round(shape: Shape, dtype: np.dtype[Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    one = layout(shape, dtype)
    np.testing.assert_array_equal(one.unpack(one.pack(images)), images)


def test_unpack_undoes_the_preprocessing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    way = Preprocessing(scale=255.0, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0), channels="bgr")
    one = layout((None, 3, 4, 5), FLOAT).preprocessed(way)
    np.testing.assert_array_equal(one.unpack(one.pack(images)), images)


def test_unpack_refuses_what_the_model_does_not_take() -> None:
    one = layout((None, 4, 5, 3), FLOAT)
    packed = np.full((1, 4, 5, 3), 0.5, dtype=np.float32)
    assert one.unpack(packed * 4).max() == 255  # the nearest pixel
    packed[0, 0, 0, 0] = np.nan
    for wrong in (packed, packed.astype(np.float64), packed[0], np.zeros((1, 4, 4, 3), dtype=np.float32)):
        with pytest.raises(UsageError):
            one.unpack(wrong)
