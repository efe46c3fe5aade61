import subprocess
import sys
from pathlib import Path

import pytest

from foretaste.classifiers import open_classifier
from foretaste.errors import ForetasteError, UsageError


def test_importing_the_package_loads_no_runtime() -> None:
    code = "import foretaste.classifiers, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "httpx", "pyarrow"} & set(run.stdout.split())


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("none.onnx", "none.onnx does not exist"),
        ("none.safetensors", "none.safetensors does not exist"),
        ("model.pt", "may run code when it is opened, so it is not; export the model to ONNX"),
        ("model.pkl", "may run code"),
        ("resnet18", "resnet18 is no model; give an .onnx file"),
        ("", "is no model"),
        ("ftp://host/model", "is no model"),
        ("no_such_module_here:ask", "there is no Python module"),
        ("http://host/models/a?b=c", "is not of the form http"),
    ],
)
def test_what_is_no_model(model: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError, match=complaint):
        open_classifier(model)


def test_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ForetasteError, match="cannot read"):
        open_classifier(tmp_path / "model.safetensors")


def test_settings_of_an_endpoint_are_for_endpoints(onnx_file: Path) -> None:
    with pytest.raises(UsageError, match=r"is no http\(s\):// endpoint, so it has no timeout or batch_size"):
        open_classifier(onnx_file, timeout=3, batch_size=4)
