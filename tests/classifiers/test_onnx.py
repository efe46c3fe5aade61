import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from foretaste.classifiers.onnx import OnnxModel
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.errors import ForetasteError, UsageError
from foretaste.samples import Images

Sizes = Sequence[int | str | None]


def write(
    path: Path,
    shape: Sizes | None = ("n", 16, 16, 3),
    *,
    given: int = TensorProto.UINT8,
    answer: str = "scores",
    weights_at: str | None = None,
    domain: str = "",
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a model that scores an image by its pixels' sums under two fixed weightings."""
    n = int(np.prod([size for size in (shape or ())[1:] if isinstance(size, int)]))
    weights = np.stack([np.ones(n), np.linspace(0, 2, n)], axis=1).astype(np.float32)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)
    if weights_at is not None:
        set_external_data(tensor, weights_at)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["g"], domain=domain),
        helper.make_node("MatMul", ["g", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0),
    ]
    outputs = {
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2]),
        "labels": helper.make_tensor_value_info("labels", TensorProto.INT64, [None]),
        "g": helper.make_tensor_value_info("g", TensorProto.FLOAT, [None, n]),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", given, shape)],
        [outputs[name] for name in answer.split()],
        [tensor],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, metadata or {})
    path.write_bytes(model.SerializeToString())
    return path


def expected(images: Images) -> list[int]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    labels: list[int] = np.argmax([flat.sum(axis=1), flat @ np.linspace(0, 2, flat.shape[1])], axis=0).tolist()
    return labels


def test_layouts_and_types(tmp_path: Path, images: Images) -> None:
    last = OnnxModel(write(tmp_path / "last.onnx")).classify(images)
    assert last.scores is not None
    assert len(set(expected(images))) == 2
    assert last.labels.tolist() == expected(images)

    as_floats = OnnxModel(write(tmp_path / "floats.onnx", given=TensorProto.FLOAT)).classify(images)
    assert as_floats.scores is not None
    np.testing.assert_allclose(as_floats.scores, last.scores / 255, rtol=1e-5)

    first = OnnxModel(write(tmp_path / "first.onnx", ["n", 3, 16, 16]))
    assert first.sample_shape == (16, 16, 3)
    flipped = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(images.shape)
    assert first.classify(images).labels.tolist() == expected(flipped)


def test_labels_alone(tmp_path: Path, images: Images) -> None:
    answers = OnnxModel(write(tmp_path / "model.onnx", answer="labels")).classify(images)
    assert answers.scores is None
    assert answers.labels.tolist() == expected(images)
    assert OnnxModel(write(tmp_path / "both.onnx", answer="labels scores")).classify(images).scores is not None


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_fixed_batch(batch: int, tmp_path: Path, images: Images) -> None:
    model = OnnxModel(write(tmp_path / "model.onnx", [batch, 16, 16, 3]))
    for n in (0, 1, 6, 20):
        assert model.classify(images[:n]).labels.tolist() == expected(images)[:n]


def test_class_names(tmp_path: Path) -> None:
    for text, classes in (
        (json.dumps(["é", "b"]), ("é", "b")),
        (json.dumps(odd := ["a\u00a0b", "\u3000", "👩\u200d🚀", "two\nlines"]), tuple(odd)),
        ('["\\ud800", "b"]', ("\\ud800", "b")),
        ("['a', 'b']", None),
        ("[1, 2]", None),
        ("[" * 100_000, None),
        ('{"a": "b"}', None),
    ):
        assert OnnxModel(write(tmp_path / "model.onnx", metadata={"classes": text})).classes == classes


def test_names_for_other_classes_than_the_scores(tmp_path: Path, images: Images) -> None:
    model = OnnxModel(write(tmp_path / "model.onnx", metadata={"classes": json.dumps(["a", "b", "c"])}))
    with pytest.raises(ForetasteError, match="2 scores per image but has 3 classes"):
        model.classify(images)


def test_threads_may_share_a_model(onnx_file: Path, images: Images) -> None:
    model = OnnxModel(onnx_file)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model.classify, [images] * 8))
    for one in answers:
        np.testing.assert_array_equal(one.labels, answers[0].labels)


def test_its_threads_do_not_wait_by_spinning(onnx_file: Path) -> None:
    options = OnnxModel(onnx_file)._open(threads=2).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_files_that_are_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match="does not exist"):
        OnnxModel(path)
    whole = write(tmp_path / "whole.onnx").read_bytes()
    for content in (b"", b"garbage", b"\x80\x04\x95", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ForetasteError, match=r"model\.onnx (is not an ONNX file|cannot be run)"):
            OnnxModel(path)


@pytest.mark.parametrize(
    ("shape", "given", "answer", "complaint"),
    [
        (["n", 16, 16], TensorProto.UINT8, "scores", "rank 4"),
        (["n", 768], TensorProto.FLOAT, "scores", r"rank 4; its input is x: float32 \(any, 768\)"),
        (["n", 16, 16, 2], TensorProto.UINT8, "scores", "does not make clear"),
        (["n", 3, 16, 3], TensorProto.UINT8, "scores", "does not make clear"),
        (["n", 16, 16, 3], TensorProto.DOUBLE, "scores", "must take uint8 or float32"),
        (["n", 16, 16, 3], TensorProto.UINT8, "scores g", "must have one output"),
    ],
)
def test_models_that_take_no_images(shape: Sizes, given: int, answer: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ForetasteError, match=complaint):
        OnnxModel(write(tmp_path / "model.onnx", shape, given=given, answer=answer))


def test_images_of_another_shape(tmp_path: Path) -> None:
    model = OnnxModel(write(tmp_path / "model.onnx"))
    for shape in ((16, 16, 1), (17, 16, 3)):
        with pytest.raises(UsageError, match=r"model\.onnx takes images of 16×16×3 .*, not"):
            model.classify(np.zeros((2, *shape), dtype=np.uint8))


def test_a_model_that_fails_on_its_images(tmp_path: Path) -> None:
    model = OnnxModel(write(tmp_path / "model.onnx", ["n", "h", 16, 3]))
    assert model.sample_shape is None
    with pytest.raises(ForetasteError, match=r"model\.onnx fails on images \(1, 16, 16, 3\): "):
        model.classify(np.zeros((2, 16, 16, 3), dtype=np.uint8))


def test_unknown_operators_are_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ForetasteError, match=r"cannot be run: .*com\.example"):
        OnnxModel(write(tmp_path / "model.onnx", domain="com.example"))
    assert capfd.readouterr() == ("", "")


def test_weights_beside_the_model(tmp_path: Path, images: Images) -> None:
    path = write(tmp_path / "model.onnx", weights_at="w.bin")
    with pytest.raises(ForetasteError, match="cannot read the weights"):
        OnnxModel(path)
    weights = np.stack([np.ones(768), np.linspace(0, 2, 768)], axis=1).astype(np.float32)
    (tmp_path / "w.bin").write_bytes(weights.tobytes())
    assert OnnxModel(path).classify(images).labels.tolist() == expected(images)
    (tmp_path / "w.bin").write_bytes(weights.tobytes()[:-4])
    with pytest.raises(ForetasteError, match=r"model\.onnx"):
        OnnxModel(path)


def test_weights_elsewhere_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    elsewhere = tmp_path / "w.bin"
    elsewhere.write_bytes(bytes(768 * 2 * 4))
    (folder / "link.bin").symlink_to(elsewhere)
    for place in ("../w.bin", str(elsewhere), "link.bin"):
        with pytest.raises(ForetasteError, match="cannot read the weights"):
            OnnxModel(write(folder / "model.onnx", weights_at=place))


def test_weights_elsewhere_in_a_function_are_not_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "w.bin"
    elsewhere.write_bytes(bytes(8))
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], bytes(8), raw=True)
    set_external_data(tensor, str(elsewhere))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["b"], value=tensor)
    function = helper.make_function("inner", "F", ["a"], ["b"], [constant], [helper.make_opsetid("", 18)])
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["y"], domain="inner")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("inner", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ForetasteError, match="cannot read the weights"):
        OnnxModel(tmp_path / "model.onnx")


def test_a_file_or_the_user_says_what_is_done_to_the_pixels(tmp_path: Path, images: Images) -> None:
    said = {"preprocessing": json.dumps({"mean": [0.5], "std": [0.25]})}
    path = write(tmp_path / "model.onnx", given=TensorProto.FLOAT, metadata=said)
    in_file = OnnxModel(path)
    assert in_file.preprocessing == Preprocessing(mean=(0.5,), std=(0.25,))
    for model in (in_file, OnnxModel(path, preprocessing=Preprocessing(scale=255))):
        other = model.preprocessed(Preprocessing(scale=2))
        for asked in (model, other, model):  # the one leaves the other as it was
            scores = asked.classify(images).scores
            assert scores is not None
            sums = asked.preprocessing.apply(images).sum(axis=(1, 2, 3))
            np.testing.assert_allclose(scores[:, 0], sums, rtol=1e-3, atol=1e-2)


def test_a_file_whose_preprocessing_is_damaged_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", given=TensorProto.FLOAT, metadata={"preprocessing": "[]"})
    with pytest.raises(ForetasteError, match='metadata key "preprocessing" is damaged'):
        OnnxModel(path)


def test_class_names_that_are_given_go_before_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", metadata={"classes": '["a", "b"]'})
    assert OnnxModel(path).classes == ("a", "b")
    assert OnnxModel(path, classes=("c", "d")).classes == ("c", "d")
