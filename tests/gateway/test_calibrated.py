from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretaste import cli
from foretaste.classifiers import Preprocessing
from foretaste.errors import UsageError
from foretaste.gateway.backends import open_model
from foretaste.gateway.calibrated import calibrate, read_clean
from foretaste.gateway.settings import Settings
from foretaste.guards.guard import Calibrated
from foretaste.samples import Samples


@pytest.fixture
def settings(model_folder: Path, tmp_path: Path) -> Settings:
    return Settings(
        model="gateway_model:corners", clean=str(model_folder / "clean.npz"), method="strip", state=tmp_path / "state"
    )


def mislabelled(clean: Samples, share: float) -> Samples:
    """Give the first samples the next label."""
    wrong = np.arange(len(clean)) < share * len(clean)
    return clean.with_labels(np.where(wrong, (clean.labels + 1) % len(clean.classes), clean.labels))


def test_a_model_that_hardly_knows_the_clean_images_is_refused(settings: Settings) -> None:
    classifier = open_model(settings)
    clean = read_clean(settings, classifier)
    with pytest.raises(UsageError, match="clean images their own label"):
        calibrate(settings, classifier, mislabelled(clean, 0.9))
    assert not (settings.state / "calibration" / "origin.json").exists()


def test_one_that_knows_few_of_them_is_doubted_once(settings: Settings) -> None:
    doubts: list[str] = []
    classifier = open_model(settings)
    half = mislabelled(read_clean(settings, classifier), 0.45)
    calibrate(settings, classifier, half, on_doubt=doubts.append)
    assert len(doubts) == 1
    assert "clean images their own label" in doubts[0]
    known: list[str] = []
    calibrate(settings, classifier, read_clean(settings, classifier), on_doubt=known.append)
    assert not known


def test_what_was_saved_and_is_damaged_is_made_anew(settings: Settings) -> None:
    settings = replace(settings, method="neo")
    classifier = open_model(settings)
    clean = read_clean(settings, classifier)
    first = calibrate(settings, classifier, clean)
    saved = settings.state / "calibration"
    for path in (saved / "references.npz", saved / "state.json"):
        path.write_bytes(path.read_bytes()[:100])
        again = calibrate(settings, classifier, clean)
        assert isinstance(first, Calibrated)
        assert isinstance(again, Calibrated)
        assert again.threshold == first.threshold


def test_how_a_local_model_takes_its_pixels_is_a_setting(settings: Settings, corners_onnx: Path) -> None:
    named = replace(settings, model=str(corners_onnx), classes=tuple("vwxyz"))
    assert open_model(named).classes == tuple("vwxyz")
    # This model takes bytes as they are, and the setting reaches it.
    with pytest.raises(UsageError, match="takes the pixels as they are"):
        open_model(replace(named, preprocessing=Preprocessing(scale=255.0)))


def test_what_an_upstream_gets_is_the_clients_choice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--upstream", "http://127.0.0.1:9/v2/models/m", "--clean", "c.npz", "--state", str(tmp_path)]
    assert cli.main(["guard", "serve", *arguments, "--scale", "255"]) == 4
    assert "--scale" in capsys.readouterr().err
