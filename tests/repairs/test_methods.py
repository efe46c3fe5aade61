"""Each repair on a small model with a backdoor: what it keeps, and what it takes out."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste.attacks import stamp_inputs
from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.inspectors.inversion import Inverted
from foretaste.inspectors.neural_cleanse import NeuralCleanse
from foretaste.nets import Net
from foretaste.repairs import repair, retrain
from foretaste.repairs.anp import prunable
from foretaste.repairs.tuning import accuracy_of, logits_of

if TYPE_CHECKING:
    from tests.conftest import TrojanedSigns

QUICK: dict[str, dict[str, Any]] = {
    "fine-tuning": {"epochs": 2},
    "fine-pruning": {"epochs": 2},
    "nad": {"teacher_epochs": 1, "epochs": 1},
    "anp": {"steps": 10},
    "i-bau": {"epochs": 1},
    "abl": {"isolate_epochs": 1, "epochs": 1, "unlearn_epochs": 1},
}


def attack_success(net: torch.nn.Module, signs: "TrojanedSigns") -> float:
    stamped, trojaned = stamp_inputs(signs.clean, signs.attack, 1, 0)
    return float((logits_of(net, stamped[trojaned]).argmax(axis=1) == 2).mean())


@pytest.mark.parametrize("method", list(QUICK))
def test_the_model_given_stays_and_preprocessing_and_classes_are_kept(
    trojaned_signs: "TrojanedSigns", method: str
) -> None:
    net = trojaned_signs.net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train = trojaned_signs.training if method == "abl" else None
    repaired = repair(net, method=method, clean=trojaned_signs.clean, train=train, seed=0, **QUICK[method])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert repaired.net.classes == net.classes
    after = repaired.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("preprocess."))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert repaired.method == method


def test_fine_tuning_takes_the_backdoor_out(trojaned_signs: "TrojanedSigns") -> None:
    assert attack_success(trojaned_signs.net, trojaned_signs) > 0.9
    repaired = repair(trojaned_signs.net, method="fine-tuning", clean=trojaned_signs.clean, seed=0)
    assert attack_success(repaired.net, trojaned_signs) < 0.2


def test_pruned_features_stay_cut_off(trojaned_signs: "TrojanedSigns") -> None:
    repaired = repair(trojaned_signs.net, method="fine-pruning", clean=trojaned_signs.clean, seed=0, epochs=1)
    assert isinstance(repaired.net, Net)
    silent = int((repaired.net.head.weight == 0).all(dim=0).sum())
    assert silent == repaired.facts["pruned"] != 0


def test_pruned_neurons_give_their_bias_alone(trojaned_signs: "TrojanedSigns") -> None:
    repaired = repair(trojaned_signs.net, method="anp", clean=trojaned_signs.clean, seed=0, **QUICK["anp"])
    layers = list(zip(prunable(trojaned_signs.net), prunable(repaired.net), strict=True))
    pruned = [(after.weight == 0) & (before.weight != 0) for before, after in layers]
    assert sum(int(some.sum()) for some in pruned) == repaired.facts["pruned"] != 0
    for (before, after), some in zip(layers, pruned, strict=True):
        assert before.bias is not None
        assert after.bias is not None
        assert torch.equal(before.weight[~some], after.weight[~some])
        assert torch.equal(before.bias, after.bias)
        given = after(torch.randn((2, len(some), 3, 3), generator=torch.Generator().manual_seed(0)))
        expected = after.bias[some].reshape(1, -1, 1, 1).expand(2, -1, 3, 3)
        torch.testing.assert_close(given[:, some], expected)


def test_abl_isolates_poison(trojaned_signs: "TrojanedSigns") -> None:
    repaired = repair(
        trojaned_signs.net, method="abl", train=trojaned_signs.training, seed=0, epochs=1, unlearn_epochs=0
    )
    assert repaired.facts["isolated"] == 9


def test_abl_unlearns_nothing_that_costs_the_classes(trojaned_signs: "TrojanedSigns") -> None:
    """Of so short a training, the easiest samples are no poison."""
    settings: dict[str, Any] = {"epochs": 1, "unlearn_rate": 1.0}
    repaired = repair(
        trojaned_signs.net, method="abl", train=trojaned_signs.training, seed=0, most_loss=0.01, **settings
    )
    assert repaired.facts["unlearnt"] == 0
    assert "no poison" in repaired.notes[0]
    anyway = repair(trojaned_signs.net, method="abl", train=trojaned_signs.training, seed=0, most_loss=1.0, **settings)
    assert anyway.facts["unlearnt"] == anyway.facts["isolated"] == 9
    assert accuracy_of(anyway.net, trojaned_signs.clean) < accuracy_of(repaired.net, trojaned_signs.clean)


def test_retrain_trains_on_what_passed(trojaned_signs: "TrojanedSigns", monkeypatch: pytest.MonkeyPatch) -> None:
    poison = trojaned_signs.poison

    def cleanse(*_: object, **__: object) -> Verdict:
        condemned = ClassEvidence(
            label=2, n_samples=1, n_suspects=1, n_flagged=1, statistic=1, threshold=0, condemned=True, reason="It is."
        )
        return Verdict(
            scores=poison.astype(np.float32), flagged=poison, classes=(condemned,), method="x", seed=0, seconds=0
        )

    monkeypatch.setattr(retrain, "cleanse", cleanse)
    repaired = repair(trojaned_signs.net, method="retrain", train=trojaned_signs.training, seed=0, epochs=12)
    assert repaired.facts["flagged"] == int(poison.sum())
    assert repaired.facts["condemned classes"] == [trojaned_signs.clean.classes[2]]
    assert attack_success(repaired.net, trojaned_signs) < 0.2
    assert accuracy_of(repaired.net, trojaned_signs.clean) > 0.4


def test_no_trigger_is_unlearned_where_none_was_found(
    trojaned_signs: "TrojanedSigns", monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width, channels = trojaned_signs.clean.sample_shape
    mask = np.full((height, width, 1), 0.1, dtype=np.float32)
    pattern = np.zeros((height, width, channels), dtype=np.float32)
    none = [Inverted(label, mask, pattern, False) for label in range(len(trojaned_signs.clean.classes))]
    monkeypatch.setattr(NeuralCleanse, "invert", lambda *_: none)
    repaired = repair(trojaned_signs.net, method="neural-cleanse", clean=trojaned_signs.clean, seed=0)
    assert repaired.facts == {"unlearned": []}
    assert "none was unlearned" in repaired.notes[0]
    after = repaired.net.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in trojaned_signs.net.state_dict().items())
