import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from foretaste import cleansers, io, training
from foretaste.bench import doors, results, runner, specification, tables
from foretaste.bench.artefacts import Store
from foretaste.bench.case import Case, DataSets
from foretaste.bench.methods import hyperparameters, plain_settings
from foretaste.bench.records import Record, read_record
from foretaste.bench.specification import ORACLE
from foretaste.errors import ForetasteError
from foretaste.progress import Progress
from foretaste.samples import Samples

from .conftest import Finished, run

TIMED = {"seconds", "cpu_seconds", "model_seconds"}


def forget_cells(place: Path) -> None:
    for path in (place / "out/cells").glob("*.json"):
        path.unlink()


def only(place: Path, methods: str, extra: str = "") -> None:
    """Have the specification end in other methods, on the attack alone."""
    head, _, _ = (place / "spec.toml").read_text().partition("[[cleansers]]")
    (place / "spec.toml").write_text(head.replace('[[attacks]]\nname = "none"\n', "") + methods + extra)


def test_every_cell_is_measured_and_what_fails_is_recorded(finished: Finished) -> None:
    records = finished.records
    assert len(records) == 3 + 3 + 1  # methods without attack, with attack, and the oracle
    found = records["badnets", "corner", False]
    assert (found.n_samples, found.n_poison) == (200, 20)
    assert (found.figures["tpr"], found.figures["fpr"], found.figures["auroc"]) == (1.0, 0.0, 1.0)
    assert found.report
    page = finished.folder / "out/cells" / found.cell.key / "report.html"
    assert "20 samples have the patch" in page.read_text()
    for key in ("accuracy_before", "accuracy_after", "attack_success_before", "attack_success_after"):
        assert 0 <= (found.figures[key] or 0) <= 1
    assert (found.figures["model_seconds"] or 0) > 0
    assert found.figures["victim_seconds"] is None
    clean = records[None, "corner", False]
    assert clean.figures["tpr"] is None
    assert clean.figures["fpr"] == 0
    # Nothing was flagged, so the model after is the model before.
    assert clean.figures["accuracy_after"] == clean.figures["accuracy_before"]
    broken = records["badnets", "broken", False]
    assert broken.failed == "unexpected ZeroDivisionError in inspect: no such luck"
    assert broken.figures == {}
    kept = json.loads((finished.folder / f"out/cells/{broken.cell.key}.json").read_text())
    assert kept["failed"] == broken.failed


def test_an_oracle_is_told_the_true_rate(finished: Finished) -> None:
    def flagged(record: Record) -> float:
        return 20 * (record.figures["tpr"] or 0) + 180 * (record.figures["fpr"] or 0)

    assert flagged(finished.records["badnets", "rated", True]) == pytest.approx(20)
    assert flagged(finished.records["badnets", "rated", False]) == pytest.approx(0.5 * 200)
    assert (None, "rated", True) not in finished.records


def test_no_method_knows_the_rate_but_as_an_oracle(place: Path) -> None:
    rated = [kind for kind in cleansers.CLEANSERS.values() if ORACLE in hyperparameters(kind)]
    assert {kind.name for kind in rated} == {"spectral-signatures", "spectre"}
    assert all((plain_settings(kind())[ORACLE], plain_settings(kind())["multiple"]) == (None, 1.5) for kind in rated)
    only(place, '[[cleansers]]\nname = "spectral-signatures"\n', "[doors.cleansers]\nretrain = false\n")
    found = {record.cell.oracle: record for record in run(place)[1].values()}
    assert found[True].failed is found[False].failed is None
    sizes = np.bincount(Case(found[True].cell, Store("out"), DataSets()).samples.labels)
    flagged = 20 * (found[True].figures["tpr"] or 0) + 180 * (found[True].figures["fpr"] or 0)
    # As the published code does: 1.5 times the poison from every class, but no more than half of it.
    assert flagged == pytest.approx(np.minimum(1.5 * 20, sizes // 2).sum())


def test_a_second_run_does_only_what_failed_and_shares_what_is_there(place: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (place / "out/artefacts").iterdir()}
    kinds = [name.split("-")[0] for name in before]
    # Two victims, and what was trained on what corner and rated left.
    assert {kind: kinds.count(kind) for kind in kinds} == {"poisoned": 1, "verdict": 5, "model": 6}
    _, again = run(place)
    assert {label for _, label, _ in again} == {"broken"}
    assert {path.name: path.stat().st_mtime_ns for path in (place / "out/artefacts").iterdir()} == before


def test_an_interrupted_run_goes_on_and_ends_in_the_same_figures(place: Path, finished: Finished) -> None:
    sets, records = DataSets(), list[Record]()
    wanted = specification.read(place / "spec.toml", sets)

    def kill(progress: Progress) -> None:
        if "badnets" in progress.phase and "train" in progress.phase and progress.done == progress.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(wanted, Store("anew"), sets, on_record=records.append, on_progress=kill)
    assert 0 < len(records) < len(wanted.cells)
    (place / "anew/cells/.half.json.0123456789ab.partial").write_text("{")
    _, rest = run(place, "anew")
    assert not list((place / "anew/cells").glob("*.partial"))
    done = {record.cell.key for record in records if record.failed is None}
    assert not done & {record.cell.key for record in rest.values()}
    for record in finished.records.values():
        kept = read_record(Store("anew"), record.cell.key)
        assert kept is not None
        assert {key: kept.figures[key] for key in record.figures.keys() - TIMED} == {
            key: record.figures[key] for key in record.figures.keys() - TIMED
        }


def test_a_verdict_outlives_a_run_that_was_killed_after_it(place: Path, finished: Finished) -> None:
    forget_cells(place)
    calls = (finished.folder / "runs.txt").read_text()
    _, again = run(place)
    assert len(again) == 7
    assert (finished.folder / "runs.txt").read_text() == calls


def test_a_damaged_artefact_is_made_anew_with_a_sentence(place: Path, finished: Finished) -> None:
    only(place, '[[cleansers]]\nname = "bench_methods:Corner"\nlabel = "corner"\n')
    for path in (place / "out/artefacts").glob("model-*"):
        path.write_bytes(b"nonsense")
    for path in (place / "out/cells").glob("*.json"):
        path.write_text("{")
    said: list[str] = []
    store, sets = Store("out", said.append), DataSets()
    [again] = runner.run(specification.read(place / "spec.toml", sets), store, sets)
    assert sum(sentence.endswith("the cell counts as not measured") for sentence in said) == 1
    assert sum(sentence.endswith("is damaged, and is made anew") for sentence in said) == 2
    before = finished.records["badnets", "corner", False]
    assert again.figures["accuracy_after"] == before.figures["accuracy_after"]


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_cells(place)
    sets, records, write = DataSets(), list[Record](), Store.write
    wanted = specification.read(place / "spec.toml", sets)

    def full(self: Store, name: str, content: bytes) -> None:
        if len(records) == 3:
            raise ForetasteError(f"cannot write {name}: No space left on device")
        write(self, name, content)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(ForetasteError, match="No space left"):
        runner.run(wanted, Store("out"), sets, on_record=records.append)
    assert all(read_record(Store("out"), record.cell.key) == record for record in records)


def test_imperfections_come_before_the_attack(place: Path) -> None:
    more = '\n[doors.cleansers]\nretrain = false\n[[imperfections]]\nimbalance = 4\nlabel_noise = 0.1\nlabel = "real"\n'
    only(place, '[[cleansers]]\nname = "bench_methods:Corner"\n', more)
    [one] = run(place)[1].values()
    assert one.n_samples < 200
    assert one.n_poison == round(0.1 * one.n_samples)
    assert one.figures["tpr"] == 1
    assert "accuracy_after" not in one.figures
    assert one.cell.title().startswith("tiny signs (200 of 240), real, badnets 10 %")


def test_guards_screen_inputs_on_the_same_models(place: Path) -> None:
    only(place, '[[guards]]\nname = "strip"\nset = { overlays = 5 }\n[doors.guards]\ninputs = 60\n')
    models = sorted((place / "out/artefacts").glob("model-*"))
    [one] = run(place)[1].values()
    assert one.failed is None
    assert one.figures["queries_per_image"] == 6
    assert (one.figures["ms_per_image"] or 0) > 0
    assert 0 <= (one.figures["fpr"] or 0) <= 1
    assert sorted((place / "out/artefacts").glob("model-*")) == models


@dataclass(frozen=True, kw_only=True)
class AlwaysTwo:
    """Makes a model answer class 2, whatever it is asked."""


@dataclass(frozen=True, kw_only=True)
class OtherDoor:
    """A door of another kind: what its methods make of the model is judged as models are."""

    title: ClassVar[str] = "Others"
    legend: ClassVar[str] = "Accuracy in percent. The darker, the better."
    columns: ClassVar[tuple[doors.Column, ...]] = (
        doors.Column(key="accuracy", title="accuracy", unit="share", best="high"),
        doors.Column(key="attack_success", title="attack success", unit="share", best="low"),
    )

    def find(self, name: str) -> type[Any]:
        return {"always-two": AlwaysTwo}[name]

    def refuses(self, attack: type[Any] | None, method: type[Any]) -> str | None:
        return None

    def refuses_samples(self, samples: Samples) -> str | None:
        return None

    def fewest_clean(self, method: type[Any]) -> int:
        return 0

    def prepare(self, method: Any, case: Case) -> None:
        pass

    def measure(self, method: Any, case: Case) -> doors.Figures:
        net = deepcopy(case.victim.net)
        net.head.weight.data[:] = 0
        net.head.bias.data[2] = 1e9
        accuracy, success = case.judge(net)
        return {"accuracy": accuracy, "attack_success": success}

    def effort(self, method: type[Any], n_samples: int) -> doors.Effort:
        return doors.Effort(samples=n_samples)

    def goodness(self, figures: Any) -> float | None:
        good: float | None = figures["accuracy"]
        return good

    def headline(self, figures: Any) -> str:
        return doors.percent(figures["accuracy"])


def test_a_door_of_another_kind_needs_no_change_of_the_runner(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doors.DOORS, "others", OtherDoor)
    only(place, '[[others]]\nname = "always-two"\n')
    [one] = run(place)[1].values()
    assert one.figures["accuracy"] == pytest.approx(
        (io.load("test.npz").labels == 2).mean(), abs=0.1
    )  # some are clean set
    assert one.figures["attack_success"] == 0  # the attack forces class 1
    gathered = results.gather(Store("out"))
    assert "## Others: tiny signs (200 of 240), compact-resnet" in tables.markdown(gathered)


def test_an_attack_on_a_model_gives_guards_the_model_that_it_made(place: Path) -> None:
    head = (place / "spec.toml").read_text().replace('name = "badnets"\nrates = [0.1]\n', 'name = "trojan-nn"\n')
    head = head.replace("size = 0.2, target = 1", "steps = 3, training_steps = 2, target = 1")
    (place / "spec.toml").write_text(head)
    only(place, '[[guards]]\nname = "strip"\nset = { overlays = 5 }\n[doors.guards]\ninputs = 60\n')
    [one] = run(place)[1].values()
    assert one.failed is None
    assert one.n_poison == 0
    assert one.figures["tpr"] is None or 0 <= one.figures["tpr"] <= 1
    # What the attack learnt is found in the cache again, when the benchmark has lost it.
    [learnt] = (place / "cache/attacks").iterdir()
    for path in (place / "out/artefacts").glob("poisoned-*"):
        path.unlink()
    forget_cells(place)
    assert [record.failed for record in run(place)[1].values()] == [None]
    assert list((place / "cache/attacks").iterdir()) == [learnt]
    assert not list((place / "out/work").iterdir())


def test_a_method_that_leaves_one_class_has_no_model_after(place: Path) -> None:
    methods = '[[cleansers]]\nname = "bench_methods:Rated"\nset = { expected_rate = 1.0 }\n'
    only(place, methods.replace("oracle = true", ""))
    found = {record.cell.oracle: record for record in run(place)[1].values()}
    assert found[False].failed is None
    assert found[False].figures["fpr"] == 1
    assert "accuracy_after" not in found[False].figures


def test_a_method_that_looks_into_a_classifier_has_the_table_s_network_trained_once(place: Path) -> None:
    settings = "set = { epochs = 3 }\n"
    methods = "".join(
        f'[[cleansers]]\nname = "bench_methods:Looker"\nlabel = "{label}"\n{given}'
        for label, given in (("one", ""), ("two", "set = { cutoff = 1.0 }\n"), ("own", settings))
    )
    only(place, methods, "[doors.cleansers]\nretrain = false\n")
    one, two, own = run(place)[1].values()
    assert one.failed is None
    network = {"net": "compact-resnet", "epochs": 1, "width": 4, "batch_size": 50}
    assert one.cell.defence.settings == {"size": 3, "cutoff": 0.0, **network}
    assert own.cell.defence.settings["epochs"] == 3
    assert one.figures["victim_seconds"] == two.figures["victim_seconds"] != own.figures["victim_seconds"]
    assert (one.figures["victim_seconds"] or 0) > 0.2
    assert not list((place / "out/work").iterdir())


def test_a_model_that_cannot_be_judged_is_not_trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = np.load("test.npz")
    of_others = held_out["y"] != 2
    np.savez("test.npz", x=held_out["x"][of_others], y=held_out["y"][of_others])
    head = (place / "spec.toml").read_text().replace('name = "badnets"\nrates = [0.1]\n', 'name = "tact"\n')
    head = head.replace("size = 0.2, target = 1", "rate = 0.1, cover_rate = 0.1, source = 2, cover_classes = [1]")
    (place / "spec.toml").write_text(head)
    only(place, '[[cleansers]]\nname = "bench_methods:Corner"\n')

    def train(*arguments: object, **named: object) -> None:
        raise AssertionError("trained for nothing")

    monkeypatch.setattr(training, "train", train)
    [one] = run(place)[1].values()
    assert one.failed == "none of the inputs is of a class that the attack turns"
