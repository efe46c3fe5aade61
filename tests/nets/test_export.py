import json
import os
import resource
import signal
import stat
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from foretaste.errors import ForetasteError
from foretaste.nets import Net, build
from foretaste.nets.export import export_onnx, load, save
from foretaste.training import predict

SHAPES: list[tuple[str, tuple[int, ...]]] = [
    ("compact-resnet", (32, 28, 3)),
    ("convnet", (28, 33, 1)),
    ("vgg11", (28, 33, 1)),
    ("vit", (28, 33, 3)),
    ("mlp", (7,)),
]


def used(name: str, shape: tuple[int, ...]) -> Net:
    """Return a net whose every buffer and weight differs from what a new one has."""
    generator = torch.Generator().manual_seed(3)
    net = build(name, shape, ("a", "é", "c"), generator=generator, width=8)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor += 0.05 * (torch.rand(tensor.shape, generator=generator) - 0.5)
    return net


def raw(shape: tuple[int, ...], n: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    rng = np.random.default_rng(0)
    if len(shape) == 3:
        return rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return rng.normal(size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_a_saved_net_is_the_same_when_loaded(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    net = used(name, shape)
    save(net, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert (again.name, again.width, again.sample_shape, again.classes) == (name, 8, shape, ("a", "é", "c"))
    assert not again.training
    assert np.array_equal(predict(net, raw(shape, 5)), predict(again, raw(shape, 5)))


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_onnx_agrees_with_torch(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    net = used(name, shape)
    export_onnx(net, tmp_path / "model.onnx")
    assert net.training
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    [given] = session.get_inputs()
    assert given.name == ("images" if len(shape) == 3 else "features")
    assert given.type == ("tensor(uint8)" if len(shape) == 3 else "tensor(float)")
    assert given.shape[1:] == list(shape)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "é", "c"]
    for n in (1, 5):
        [logits] = session.run(["logits"], {given.name: raw(shape, n)})
        np.testing.assert_allclose(logits, predict(net, raw(shape, n)), atol=1e-4)


def test_files_that_are_no_nets_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ForetasteError, match="there is no file"):
        load(path)
    save(used("mlp", (7,)), path)
    whole, tensors = path.read_bytes(), load_file(path)

    path.write_bytes(whole[:-100])
    with pytest.raises(ForetasteError, match="cannot read"):
        load(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ForetasteError, match="cannot read"):
        load(path)
    save_file(tensors, path)
    with pytest.raises(ForetasteError, match="not a model that foretaste wrote"):
        load(path)

    card: dict[str, object] = {"net": "mlp", "width": 8, "sample_shape": [7], "classes": ["a", "é", "c"]}
    changes: tuple[dict[str, object], ...] = (
        {"width": 9},
        {"width": 10**9},
        {"net": "nonesuch"},
        {"classes": []},
        {"sample_shape": [7, 7]},
    )
    for change in changes:
        save_file(tensors, path, {"foretaste": json.dumps(card | change)})
        with pytest.raises(ForetasteError):
            load(path)
    save_file({**tensors, "head.bias": tensors["head.bias"].double()}, path, {"foretaste": json.dumps(card)})
    with pytest.raises(ForetasteError, match="its tensors are not those"):
        load(path)


def test_files_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        save(used("mlp", (7,)), tmp_path / "model.safetensors")
        export_onnx(used("mlp", (7,)), tmp_path / "model.onnx")
    finally:
        os.umask(previous)
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o640, 0o640]


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails with an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, previous[1]))
    try:
        with pytest.raises(ForetasteError, match=r"^cannot write .*model\.safetensors: File too large$"):
            save(used("mlp", (7,)), tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
