"""``foretaste repair`` on a small net that tells dark from bright, and what it refuses."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from foretaste import cli
from foretaste.guards.neo import Registry
from foretaste.guards.trigger import Trigger
from foretaste.io.truth import Truth, write_truth
from foretaste.nets import Net, build
from foretaste.nets.export import load, save
from foretaste.progress import OnProgress
from foretaste.repairs import REPAIRS, Mended
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.conftest import CheckJson

SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Doubles the last layer, which changes no answer."""

    name: ClassVar[str] = "rescale"
    summary: ClassVar[str] = "doubles logits"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 4

    factor: float = 2.0

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
        with torch.no_grad():
            head.weight.mul_(self.factor)
            head.bias.mul_(self.factor)
        return Mended(net=net, facts={"factor": self.factor}, notes=("A note.",))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPAIRS, "rescale", Rescale)


def pictures(n: int) -> Samples:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = (60 + 130 * labels)[:, None, None, None] + rng.integers(0, 9, (n, SIDE, SIDE, 3))
    return Samples.from_arrays(images.astype(np.uint8), labels)


@pytest.fixture(scope="module")
def net() -> Net:
    """Return a net whose head is set so that it names the brighter half 1, as its features say."""
    net = build("convnet", (SIDE, SIDE, 3), ["0", "1"], generator=torch.Generator().manual_seed(0), width=4).eval()
    samples = pictures(40)
    net.preprocess.measure(samples.inputs)
    with torch.no_grad():
        features = net.features(torch.from_numpy(samples.inputs))
        dark, bright = (features[torch.from_numpy(samples.labels == label)].mean(dim=0) for label in (0, 1))
        net.head.weight.copy_(torch.stack([dark - bright, bright - dark]))
        net.head.bias.copy_(-net.head.weight @ ((dark + bright) / 2))
    return net


@pytest.fixture
def files(net: Net, tmp_path: Path) -> tuple[str, str]:
    """Return a model and a clean set."""
    save(net, tmp_path / "model.safetensors")
    samples = pictures(40)
    np.savez(tmp_path / "clean.npz", x=samples.inputs, y=samples.labels)
    return str(tmp_path / "model.safetensors"), str(tmp_path / "clean.npz")


def save_trigger(folder: Path, side: int, top: int = 0) -> None:
    """Save a registry of one bright square at the left edge, which forces 1."""
    trigger = Trigger(
        patch=np.full((side, side, 3), 190, dtype=np.uint8),
        mask=np.ones((side, side), dtype=np.bool_),
        position=(top, 0),
        anywhere=False,
        target=1,
        flip_rate=1.0,
        n_confirmed=20,
    )
    Registry([trigger]).save(folder)


def run(model: str, clean: str, out: Path, *more: str) -> int:
    return cli.main(["repair", model, "--method", "rescale", "--clean", clean, "--out", str(out), *more])


def test_a_repaired_model_is_written_and_compared(
    files: tuple[str, str], net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str], check_json: "CheckJson"
) -> None:
    save_trigger(tmp_path / "triggers", SIDE)
    out = tmp_path / "out"
    assert run(*files, out, "--registry", str(tmp_path / "triggers"), "--set", "factor=4") == 0
    told = capsys.readouterr().out
    assert "attack success: 100.00% before, 100.00% after" in told
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["accuracy_before"], summary["accuracy_after"], summary["n_test"]) == (1.0, 1.0, 40)
    assert summary["tested_on"] == "clean set"
    check_json(summary)
    assert summary["facts"] == {"factor": 4.0}
    assert "still works on 100" in (out / "report.html").read_text()
    repaired = load(out / "model.safetensors")
    torch.testing.assert_close(repaired.head.weight, 4 * net.head.weight)
    assert (repaired.classes, repaired.sample_shape) == (net.classes, net.sample_shape)
    images = pictures(6).inputs
    [logits] = onnxruntime.InferenceSession(out / "model.onnx").run(None, {"images": images})
    with torch.no_grad():
        np.testing.assert_allclose(logits, 4 * net(torch.from_numpy(images)).numpy(), rtol=1e-3, atol=1e-3)

    # An ONNX file goes in, and comes out, without safetensors.
    second = tmp_path / "second"
    assert run(str(out / "model.onnx"), files[1], second) == 0
    assert {path.name for path in second.iterdir()} == {"model.onnx", "report.html", "summary.json"}
    [twice] = onnxruntime.InferenceSession(second / "model.onnx").run(None, {"images": images})
    np.testing.assert_allclose(twice, 2 * logits, rtol=1e-3, atol=1e-3)


def test_trojaned_test_inputs_are_counted_as_guard_scan_counts_them(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_json: "CheckJson"
) -> None:
    monkeypatch.setattr("foretaste.report.repair_results.export_onnx", lambda net, path: None)
    samples = pictures(20)
    images, trojaned = samples.inputs.copy(), np.arange(20) < 4
    images[0] = 190  # dark, but the model says bright
    np.savez(tmp_path / "test.npz", x=images, y=samples.labels)
    write_truth(Truth.of_inputs(samples, trojaned), tmp_path / "truth.json")
    out = tmp_path / "out"
    arguments = ["--test", str(tmp_path / "test.npz"), "--truth", str(tmp_path / "truth.json")]
    assert run(*files, out, *arguments, "--set", "factor=-1") == 0
    summary = json.loads((out / "summary.json").read_text())
    check_json(summary)
    assert (summary["n_test"], summary["n_trojaned"]) == (16, 4)
    assert (summary["accuracy_before"], summary["accuracy_after"]) == (1.0, 0.0)
    assert (summary["asr_before"], summary["asr_after"]) == (0.25, 0.0)


def test_what_is_read_is_not_overwritten_and_what_is_there_is_not_replaced(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("foretaste.report.repair_results.export_onnx", lambda net, path: path.write_bytes(b"onnx"))
    model, before = Path(files[0]), Path(files[0]).read_bytes()
    assert run(*files, model.parent) == 4
    assert "would be overwritten" in capsys.readouterr().err
    assert model.read_bytes() == before

    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("mine")
    assert run(*files, out) == 4
    assert "which foretaste did not write" in capsys.readouterr().err
    assert (out / "report.html").read_text() == "mine"

    (out / "report.html").unlink()
    (out / "notes.txt").write_text("mine")
    for factor in (2, 3):
        assert run(*files, out, "--set", f"factor={factor}") == 0
        assert json.loads((out / "summary.json").read_text())["facts"] == {"factor": factor}
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "model.safetensors",
        "notes.txt",
        "report.html",
        "summary.json",
    }


def test_a_run_that_is_refused_leaves_the_results_of_the_one_before(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.report.repair_results.export_onnx", lambda net, path: None)
    out = tmp_path / "out"
    assert run(*files, out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    samples = pictures(40)
    np.savez(tmp_path / "wide.npz", x=np.repeat(samples.inputs, 2, axis=2), y=samples.labels)
    np.savez(tmp_path / "features.npz", x=np.ones((40, 3)), y=samples.labels)
    save_trigger(tmp_path / "triggers", 3, top=SIDE - 2)
    for arguments, reason in (
        (["--set", "factor=x"], "factor"),
        (["--test", str(tmp_path / "wide.npz")], "the test set's samples have shape (16, 32, 3)"),
        (["--test", str(tmp_path / "features.npz")], "the test set's samples have shape (3,)"),
        (["--registry", str(tmp_path / "triggers")], "does not fit on samples of shape"),
    ):
        capsys.readouterr()
        assert run(*files, out, *arguments) == 4
        assert reason in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_where_all_samples_are_of_the_forced_class_nothing_is_said_of_the_trigger(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_json: "CheckJson"
) -> None:
    monkeypatch.setattr("foretaste.report.repair_results.export_onnx", lambda net, path: None)
    save_trigger(tmp_path / "triggers", 2)
    samples = pictures(40)
    bright = samples.labels == 1
    np.savez(tmp_path / "bright.npz", x=samples.inputs[bright], y=samples.labels[bright], classes=["0", "1"])
    arguments = ["--test", str(tmp_path / "bright.npz"), "--registry", str(tmp_path / "triggers")]
    assert run(*files, tmp_path / "out", *arguments) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    check_json(summary)
    assert summary["asr_after"] is summary["triggers"][0]["asr_after"] is None


def test_bad_input_is_one_sentence_and_leaves_nothing(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, (model, clean) = tmp_path / "out", files

    def refused(*arguments: str) -> tuple[int, str]:
        code = cli.main(["repair", *arguments, "--out", str(out)])
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert not out.exists()
        return code, told

    code, told = refused(model, "--method", "glue", "--clean", clean)
    assert (code, "no repair 'glue'" in told) == (4, True)
    code, told = refused(model, "--method", "rescale")
    assert (code, "a repair needs samples" in told) == (4, True)
    code, told = refused(model, "--method", "abl", "--clean", clean)
    assert (code, "set that the model was trained on" in told) == (4, True)
    code, told = refused("http://localhost:1/v2/models/m", "--method", "rescale", "--clean", clean)
    assert (code, "has no weights to repair" in told) == (4, True)
    code, told = refused(str(tmp_path / "none.onnx"), "--method", "rescale", "--clean", clean)
    assert (code, "does not exist" in told) == (4, True)
    code, told = refused(model, "--method", "rescale", "--clean", clean, "--truth", str(tmp_path / "none.json"))
    assert code == 2
    with np.load(clean) as arrays:
        np.savez(tmp_path / "wrong.npz", x=arrays["x"], y=1 - arrays["y"])
    code, told = refused(model, "--method", "rescale", "--clean", str(tmp_path / "wrong.npz"))
    assert (code, "gets 0% of the clean set right" in told) == (4, True)


def test_list_names_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["repair", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(names) >= {"abl", "anp", "fine-pruning", "fine-tuning", "i-bau", "nad", "neural-cleanse", "retrain"}
