"""An ONNX file as a torch module: the same answers, gradients, and weights that go back."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from foretaste.classifiers import open_classifier, open_weights
from foretaste.classifiers.onnx_module import OnnxModule
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import build
from foretaste.nets.export import export_onnx
from foretaste.samples import Images

SIDE = 16


def pixels(n: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)


def runtime(path: Path, images: Any) -> Any:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def write(path: Path, nodes: list[Any], weights: dict[str, Any], given: int = TensorProto.FLOAT) -> Path:
    """Write a graph from "x", ``(n, 3, 16, 16)``, to "y", ``(n, 4)``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", given, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def common(path: Path, last: str = "Softmax") -> Path:
    """Write a small network of operators as other exporters leave them."""
    rng = np.random.default_rng(1)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k", "kb"], ["a"], pads=[0, 0, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]),
        node("LeakyRelu", ["c"], ["d"], alpha=0.1),
        node("MaxPool", ["d"], ["e"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Clip", ["f", "", "six"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("MatMul", ["h", "w"], ["i"]),
        node("Add", ["i", "wb"], ["j"]),
        node("Relu", ["j"], ["l"]),
        node("Gemm", ["l", "u", "ub"], ["z"]),
        node(last, ["z"], ["y"]),
    ]

    def drawn(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    weights = {
        "k": drawn(5, 3, 3, 3),
        "kb": drawn(5),
        "s": drawn(5),
        "b": drawn(5),
        "m": drawn(5),
        "v": np.abs(drawn(5)) + 0.5,
        "six": np.float32(6),
        "w": drawn(20, 6),
        "wb": drawn(6),
        "u": drawn(6, 4),
        "ub": drawn(4),
    }
    return write(path, nodes, weights)


def state(path: Path, preprocessing: dict[str, Any]) -> None:
    """Write a preprocessing into a file's metadata."""
    model = onnx.load(path)
    helper.set_model_props(model, {"preprocessing": json.dumps(preprocessing)})
    onnx.save(model, path)


def test_what_train_writes_is_read_with_gradients_and_classes(tmp_path: Path) -> None:
    net = build(
        "compact-resnet", (SIDE, SIDE, 3), ["a", "b", "c"], generator=torch.Generator().manual_seed(0), width=4
    ).eval()
    net.preprocess.measure(pixels(8))
    export_onnx(net, tmp_path / "model.onnx")
    module = open_weights(tmp_path / "model.onnx")
    assert isinstance(module, OnnxModule)
    assert module.classes == ("a", "b", "c")
    assert module.sample_shape == (SIDE, SIDE, 3)
    images = torch.from_numpy(pixels(5))
    with torch.no_grad():
        torch.testing.assert_close(module(images), net(images), rtol=1e-4, atol=1e-4)
    moved = images.float().requires_grad_()
    [own] = torch.autograd.grad(module(moved)[:, 0].sum(), [moved])
    [theirs] = torch.autograd.grad(net(moved)[:, 0].sum(), [moved])
    torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-6)


def test_common_operators_give_the_logits_behind_a_softmax(tmp_path: Path) -> None:
    path = common(tmp_path / "model.onnx")
    module, images = OnnxModule(path), pixels(3)
    expected = runtime(path, images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        logits = module(torch.from_numpy(images))
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, rtol=1e-4, atol=1e-6)
    assert logits.abs().max() > 1  # no probabilities


def test_changed_weights_go_back_into_the_graph(tmp_path: Path) -> None:
    path = common(tmp_path / "model.onnx")
    module, images = OnnxModule(path), pixels(3)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.mul_(1 + 0.1 * number)
        logits = module(torch.from_numpy(images))
    module.export(tmp_path / "changed.onnx")
    changed = runtime(tmp_path / "changed.onnx", images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    np.testing.assert_allclose(logits.softmax(1).numpy(), changed, rtol=1e-4, atol=1e-6)
    before, after = (onnx.load(one) for one in (path, tmp_path / "changed.onnx"))
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]


@pytest.mark.parametrize(
    "stated",
    [
        {"scale": 2},
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        {"mean": [0.5], "std": [0.25], "channels": "bgr"},
    ],
)
def test_pixels_are_preprocessed_as_the_file_states_it_before_a_repair_and_after(
    tmp_path: Path, stated: dict[str, Any]
) -> None:
    path = common(tmp_path / "model.onnx")
    state(path, stated)
    module, images = OnnxModule(path), pixels(3)
    moved = torch.from_numpy(images).float().requires_grad_()
    logits = module(moved)
    scores = open_classifier(path).classify(images).scores
    assert scores is not None
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), scores, rtol=1e-4, atol=1e-6)
    [slope] = torch.autograd.grad(logits[:, 0].sum(), [moved])
    assert slope.abs().sum() > 0

    copy.deepcopy(module).export(tmp_path / "repaired.onnx")  # a repair works on a copy
    assert onnx.load(tmp_path / "repaired.onnx").metadata_props == onnx.load(path).metadata_props
    torch.testing.assert_close(OnnxModule(tmp_path / "repaired.onnx")(moved), logits)


def test_an_input_of_bytes_gets_them_in_the_order_that_is_stated(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, 4)).astype(np.float32)}
    path = write(tmp_path / "model.onnx", nodes, weights, TensorProto.UINT8)
    state(path, {"channels": "bgr"})
    images = pixels(3)
    logits = OnnxModule(path)(torch.from_numpy(images)).detach().numpy()
    scores = open_classifier(path).classify(images).scores
    assert scores is not None
    np.testing.assert_allclose(logits, scores, rtol=1e-4)
    state(path, {"scale": 2})
    with pytest.raises(UsageError, match="takes the pixels as they are"):
        OnnxModule(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="uses Softplus, which cannot be read into torch here"):
        OnnxModule(common(tmp_path / "unknown.onnx", last="Softplus"))
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "u"], ["b"]),
        helper.make_node("MatMul", ["b", "u"], ["y"]),
    ]
    weights = {"w": np.ones((3 * SIDE * SIDE, 4), np.float32), "u": np.eye(4, dtype=np.float32)}
    with pytest.raises(UsageError, match="one weight in two layers"):
        OnnxModule(write(tmp_path / "tied.onnx", nodes, weights))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ForetasteError, match="not an ONNX file"):
        OnnxModule(tmp_path / "text.onnx")


def test_only_files_have_weights(tmp_path: Path) -> None:
    assert open_weights("http://localhost/v2/models/m") is None
    assert open_weights("package:function") is None
    with pytest.raises(UsageError, match="does not exist"):
        open_weights(tmp_path / "nothing.safetensors")
