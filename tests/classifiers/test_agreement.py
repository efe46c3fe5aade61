"""One model, asked in every way there is, gives one answer."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foretaste.classifiers import Answers, Classifier, open_classifier
from foretaste.classifiers.onnx import OnnxModel
from foretaste.classifiers.python_callable import PythonCallable
from foretaste.classifiers.torch_module import TorchModule
from foretaste.nets import Net
from foretaste.nets.export import save
from foretaste.samples import Images


def logits(net: Net, images: Images) -> Answers:
    """Return what the module says, asked one image at a time."""
    answers = [TorchModule(net).classify(images[row : row + 1]) for row in range(len(images))]
    return Answers(
        np.concatenate([one.labels for one in answers]),
        np.concatenate([one.scores for one in answers if one.scores is not None]),
    )


def assert_same(answers: Answers, others: Answers) -> None:
    assert answers.scores is not None
    assert others.scores is not None
    assert answers.labels.dtype == np.int64
    assert answers.scores.dtype == np.float32
    assert len(np.unique(answers.labels)) > 1
    np.testing.assert_array_equal(answers.labels, others.labels)
    np.testing.assert_allclose(answers.scores, others.scores, atol=1e-4)


def as_safetensors(net: Net, onnx_file: Path, folder: Path) -> str:
    save(net, folder / "model.safetensors")
    return str(folder / "model.safetensors")


def as_onnx(net: Net, onnx_file: Path, folder: Path) -> str:
    return str(onnx_file)


def as_function(net: Net, onnx_file: Path, folder: Path) -> str:
    code = f"""
        import onnxruntime
        session = onnxruntime.InferenceSession({str(onnx_file)!r})
        def classify(images):
            return session.run(None, {{"images": images}})[0]
    """
    (folder / "served_model.py").write_text(textwrap.dedent(code))
    return "served_model:classify"


@pytest.mark.parametrize("named", [as_safetensors, as_onnx, as_function])
def test_the_same_answers(
    named: Callable[[Net, Path, Path], str],
    net: Net,
    onnx_file: Path,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    classifier = open_classifier(named(net, onnx_file, tmp_path))
    assert isinstance(classifier, Classifier)
    assert_same(classifier.classify(images), logits(net, images))
    assert len(classifier.classify(images[:0])) == 0


def test_the_model_says_what_it_takes(net: Net, onnx_file: Path) -> None:
    for classifier in (TorchModule(net), OnnxModel(onnx_file)):
        assert classifier.classes == ("a", "b", "c")
        assert classifier.sample_shape == (16, 16, 3)
    assert PythonCallable(len).classes is None
    assert PythonCallable(len).sample_shape is None


@pytest.mark.mlserver
def test_a_real_model_server_gives_the_same_answers(
    net: Net, onnx_file: Path, images: Images, serve_onnx: Callable[[Path], str]
) -> None:
    url = serve_onnx(onnx_file)
    for address in (url, url.partition("/v2")[0]):
        classifier = open_classifier(address, batch_size=8, timeout=60)
        assert classifier.sample_shape == (16, 16, 3)
        assert_same(classifier.classify(images), logits(net, images))
