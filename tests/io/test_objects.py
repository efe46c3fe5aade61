"""Samples from what a Python program has: arrays, data sets of Hugging Face and of torch."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import foretaste
from foretaste import io
from foretaste.errors import EmptyError, ForetasteError, UsageError

N = 6
CLASSES = ["cat", "dog"]


@pytest.fixture
def images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (N, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(N) % 2


class Pairs(torch.utils.data.Dataset[Any]):
    """What torchvision's data sets are: pairs, and the class names."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


def test_arrays_are_taken_as_they_are(images: Any, labels: Any) -> None:
    samples = foretaste.load((images, labels))
    assert (samples.inputs == images).all()
    assert samples.labels.tolist() == labels.tolist()
    assert samples.classes == ("0", "1")
    assert samples.ids.tolist() == list("012345")


@pytest.mark.parametrize(
    "form",
    [
        lambda images: images.astype(np.float32) / 255,
        lambda images: torch.from_numpy(images),
        lambda images: torch.from_numpy(images).permute(0, 3, 1, 2),
        lambda images: torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
    ],
)
def test_tensors_in_torchs_layout_and_bytes_divided_by_255_are_turned_back(images: Any, labels: Any, form: Any) -> None:
    assert (foretaste.load((form(images), torch.from_numpy(labels))).inputs == images).all()


def test_grey_arrays_features_and_texts_as_labels(images: Any) -> None:
    grey = foretaste.load((images[..., 0], ["b", "a", "b", "a", "b", "a"]))
    assert grey.inputs.shape == (N, 5, 4, 1)
    assert (grey.classes, grey.labels.tolist()) == (("a", "b"), [1, 0, 1, 0, 1, 0])
    features = foretaste.load((np.arange(12).reshape(6, 2), [0, 1, 0, 1, 0, 1]))
    assert features.inputs.dtype == np.float32


def test_arrays_are_resized(images: Any, labels: Any) -> None:
    assert foretaste.load((images, labels), resize=(7, 9)).sample_shape == (7, 9, 3)


@pytest.mark.parametrize(
    ("inputs", "labels", "complaint"),
    [
        (np.zeros((6, 5, 4, 2), np.uint8), range(6), r"with 1 or 3 channels, not \(6, 5, 4, 2\)"),
        (np.full((6, 5, 4, 3), -0.5), range(6), "must be bytes"),
        (np.full((6, 5, 4, 3), 0.1234), range(6), "must be bytes"),
        (np.full((6, 5, 4, 3), np.nan), range(6), "must be bytes"),
        (np.full((6, 5, 4, 3), 255.0), range(6), "must be bytes"),
        (np.zeros((6, 5, 4, 3), np.int64), range(6), "must be bytes"),
        (np.zeros(6), range(6), r"must be images \(N, H, W, C\) or numbers"),
        (np.zeros((6, 2)), range(5), r"there are 6 inputs, and the labels have shape \(5,\)"),
        (np.full((6, 2), np.inf), [0, 1] * 3, "row 0 has NaN or infinite features"),
        (np.zeros((6, 2)), [0.5, 1] * 3, "labels are either all whole numbers or all texts"),
        (np.zeros((6, 2)), [0] * 6, "the pair of arrays has only one class"),
    ],
)
def test_what_cannot_be_meant_is_refused(inputs: Any, labels: Any, complaint: str) -> None:
    with pytest.raises(ForetasteError, match=complaint):
        foretaste.load((inputs, list(labels)))


def test_samples_without_a_label_are_refused_or_left_out(images: Any) -> None:
    given = [0, 1, -1, 1, 0, 1]
    with pytest.raises(ForetasteError, match=r"row 2 has no label"):
        foretaste.load((images, given))
    with pytest.warns(UserWarning, match="left out 1; first the pair of arrays, row 2, which has no label"):
        samples = foretaste.load((images, given), on_bad="skip")
    assert samples.ids.tolist() == list("01345")
    assert (samples.inputs == images[[0, 1, 3, 4, 5]]).all()


@pytest.mark.parametrize(
    "form",
    [
        Image.fromarray,
        lambda image: image,
        torch.from_numpy,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1).float() / 255,
    ],
)
def test_data_sets_of_torch_are_read(images: Any, labels: Any, form: Any) -> None:
    pairs = Pairs([(form(image), label) for image, label in zip(images, labels.tolist(), strict=True)], CLASSES)
    samples = foretaste.load(pairs)
    assert (samples.inputs == images).all()
    assert (samples.labels == labels).all()
    assert samples.classes == ("cat", "dog")
    part = foretaste.load(torch.utils.data.Subset(pairs, [1, 0, 5]))
    assert (part.inputs == images[[1, 0, 5]]).all()
    assert part.classes == ("cat", "dog")


def test_grey_among_colour_becomes_rgb_and_sizes_must_agree(images: Any) -> None:
    mixed = [(Image.fromarray(images[0]), 0), (Image.fromarray(images[1, ..., 0]), torch.tensor(1))]
    samples = foretaste.load(Pairs(mixed))
    assert (samples.inputs[1] == images[1, ..., :1]).all()
    mixed.append((Image.new("L", (9, 9)), 1))
    with pytest.raises(ForetasteError, match="row 0 has 4 x 5 pixels, row 2 has 9 x 9; give resize"):
        foretaste.load(Pairs(mixed))
    assert foretaste.load(Pairs(mixed), resize=8).sample_shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([], "holds no samples"),
        ([{"image": 1}], "row 0 is no pair"),
        ([(np.zeros(3), 0)], r"row 0 is no image \(H, W, C\)"),
        ([(Image.new("F", (4, 4)), 0)], "row 0 has floating-point pixels"),
        ([(torch.randn(3, 4, 4), 0)], "must be bytes"),
    ],
)
def test_items_that_are_no_labelled_images_are_refused(items: list[Any], complaint: str) -> None:
    with pytest.raises(ForetasteError, match=complaint):
        foretaste.load(Pairs(items))


def hub(images: Any, labels: Any) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    rows = {"image": [Image.fromarray(image) for image in images], "label": labels.tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


def test_data_sets_of_hugging_face_are_read(images: Any, labels: Any) -> None:
    dataset = hub(images, labels)
    samples = foretaste.load(dataset)
    assert (samples.inputs == images).all()
    assert samples.classes == ("cat", "dog")
    assert (samples.labels == labels).all()
    chosen = dataset.select([4, 1]).with_format("torch")
    chosen.set_transform(lambda rows: {"image": [0, 0]})
    assert (foretaste.load(chosen).inputs == images[[4, 1]]).all()


def test_images_of_a_folder_that_hugging_face_loaded_are_found(
    images: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for row, image in enumerate(images):
        paths.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image).save(paths[-1])
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict({"image": paths, "label": labels.tolist()}, features=features)
    samples = foretaste.load(dataset)
    assert (samples.inputs == images).all()
    Path(paths[3]).unlink()
    with pytest.raises(ForetasteError, match="cannot read the Dataset: "):
        foretaste.load(dataset)


def test_other_columns_are_named_and_features_are_read(images: Any, labels: Any) -> None:
    dataset = hub(images, labels).rename_columns({"image": "photo", "label": "kind"})
    samples = foretaste.load(dataset, image_column="photo", label_column="kind")
    assert (samples.inputs == images).all()
    table = datasets.Dataset.from_dict({"a": [1.0, 2.0], "b": [3, 4], "label": [0, 1]})
    assert foretaste.load(table).inputs.tolist() == [[1, 3], [2, 4]]


def test_splits_are_named_or_told(images: Any, labels: Any) -> None:
    both = datasets.DatasetDict({"train": hub(images, labels), "test": hub(images[:2], labels[:2])})
    with warnings.catch_warnings():
        assert len(foretaste.load(both, split="test")) == 2
    with pytest.warns(UserWarning, match="the DatasetDict has splits, and train was read"):
        assert len(foretaste.load(both)) == N
    with pytest.raises(UsageError, match="has no split dev; it has train, test"):
        foretaste.load(both, split="dev")
    with pytest.raises(UsageError, match="the Dataset has no splits; leave split out"):
        foretaste.load(both["train"], split="train")


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from ()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (3, "int is no source of samples; give a path"),
        (np.zeros((6, 5, 4, 3), np.uint8), "ndarray is no source"),
        ({"image": [], "label": []}, "dict is no source"),
        (Stream(), "is a stream; give a map-style one"),
        (datasets.Dataset.from_dict({"label": [1]}).to_iterable_dataset(), "is a stream; load it without streaming"),
    ],
)
def test_what_is_no_source_is_refused_in_a_sentence(source: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        foretaste.load(source)


def test_nothing_is_no_samples() -> None:
    with pytest.raises(EmptyError, match="the pair of arrays holds no samples"):
        io.read((np.zeros((0, 4, 4, 3), np.uint8), []))
