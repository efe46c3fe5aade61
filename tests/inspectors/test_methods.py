"""Each inspector on a small model with a backdoor, and on the same without."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from foretaste.inspectors import Diagnosis, inspect
from foretaste.inspectors.inversion import Inverted, invert
from foretaste.nets import Net
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.conftest import TrojanedSigns

SETTINGS: dict[str, dict[str, Any]] = {"neural-cleanse": {"steps": 60}, "mm-bd": {}, "final-layer": {}}


def diagnose(net: Net, signs: "TrojanedSigns", method: str) -> Diagnosis:
    return inspect(net, signs.clean, method=method, seed=0, **SETTINGS[method])


def wired(signs: "TrojanedSigns") -> Net:
    """Return the twin with a backdoor that is built in: its patch, as far as it is there, raises the target's logit.

    What a training makes of so few signs depends on the machine. Half a patch changes nothing, a whole one adds 100,
    more than the widest margin between the twin's logits, so that both the trigger's size and the margin are known.
    """
    net = copy.deepcopy(signs.twin)
    grey = np.full((1, *signs.clean.inputs.shape[1:]), 128, dtype=np.uint8)
    patch = signs.attack.stamp(grey, np.random.default_rng(0))[0]
    rows, columns = np.nonzero((patch != grey[0]).any(axis=2))
    wanted = torch.from_numpy(patch[rows, columns].astype(np.float32))

    def shortcut(_: torch.nn.Module, inputs: tuple[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        share = 1 - (inputs[0][:, rows, columns] - wanted).abs().mean(dim=(1, 2)) / 255
        return logits + 200 * torch.relu(share - 0.5)[:, None] * torch.eye(logits.shape[1])[signs.attack.target]

    net.register_forward_hook(shortcut)
    return net


@pytest.mark.parametrize("method", ["neural-cleanse", "mm-bd"])
def test_the_target_comes_first_and_stands_out_more_than_in_the_twin(
    trojaned_signs: "TrojanedSigns", method: str
) -> None:
    found = diagnose(wired(trojaned_signs), trojaned_signs, method)
    assert found.evidence[0].target == 2
    assert found.suspect_classes == (2,)
    twin = diagnose(trojaned_signs.twin, trojaned_signs, method)
    assert found.p_value == found.evidence[0].p_value < twin.p_value
    assert twin.p_value > 0.05


def test_the_last_layer_puts_the_target_before_other_classes(trojaned_signs: "TrojanedSigns") -> None:
    found = diagnose(trojaned_signs.net, trojaned_signs, "final-layer")
    assert 2 in [entry.target for entry in found.evidence[:3]]
    assert found.seconds < 1


@pytest.mark.parametrize("method", list(SETTINGS))
def test_the_same_seed_gives_the_same_diagnosis(trojaned_signs: "TrojanedSigns", method: str) -> None:
    first, second = (diagnose(trojaned_signs.net, trojaned_signs, method) for _ in range(2))
    assert first.evidence == second.evidence


def test_the_model_is_left_as_it_was(trojaned_signs: "TrojanedSigns") -> None:
    before = {name: tensor.clone() for name, tensor in trojaned_signs.net.state_dict().items()}
    diagnose(trojaned_signs.net, trojaned_signs, "neural-cleanse")
    assert all(torch.equal(before[name], tensor) for name, tensor in trojaned_signs.net.state_dict().items())


def test_the_inverted_trigger_works_and_lies_where_the_patch_does(trojaned_signs: "TrojanedSigns") -> None:
    found = diagnose(wired(trojaned_signs), trojaned_signs, "neural-cleanse")
    [reconstruction] = found.reconstructions
    assert reconstruction.target == 2
    assert reconstruction.flip_rate > 0.8
    assert reconstruction.n_confirmed == int((trojaned_signs.clean.labels != 2).sum())
    changed = np.abs(reconstruction.after.astype(int) - reconstruction.before).sum(axis=(0, 3))
    assert changed[13:, 13:].mean() > 3 * changed[:13, :13].mean()


def test_two_labels_are_inverted_as_each_would_be_alone_but_for_chance(trojaned_signs: "TrojanedSigns") -> None:
    settings = {"steps": 40, "images": 16, "learning_rate": 0.3, "success": 0.95, "cost": 0.01, "phase": "invert"}
    one, two = invert(
        trojaned_signs.net,
        trojaned_signs.clean,
        [2, 5],
        seed=0,
        on_progress=silent,
        **settings,  # type: ignore[arg-type]
    )
    assert (one.target, two.target) == (2, 5)
    assert one.size < two.size


def test_hard_edges_cut_out_what_is_opaque() -> None:
    mask = np.zeros((8, 8, 1), dtype=np.float32)
    mask[2:4, 5:8] = 0.9
    mask[3, 5] = 0.1
    inverted = Inverted(0, mask, np.full((8, 8, 3), 200.4, dtype=np.float32), True)
    hard = inverted.hard()
    assert hard is not None
    patch, opaque, position = hard
    assert position == (2, 5)
    assert opaque.tolist() == [[True, True, True], [False, True, True]]
    assert patch[opaque].tolist() == [[200] * 3] * 5
    assert Inverted(0, mask * 0.5, inverted.pattern, True).hard() is None


def test_a_null_of_clean_models_is_measured(trojaned_signs: "TrojanedSigns") -> None:
    from foretaste.inspectors import subject_of

    null = [subject_of(trojaned_signs.twin, trojaned_signs.clean) for _ in range(3)]
    found = inspect(wired(trojaned_signs), trojaned_signs.clean, method="mm-bd", null=null, seed=0)
    assert found.null_size == 3
    assert found.suspect_classes[0] == 2  # the three twins are one, so that anything above it stands out
    assert "3 clean models" in found.notes[-1]
    itself = inspect(trojaned_signs.twin, trojaned_signs.clean, method="mm-bd", null=null, seed=0)
    own = diagnose(trojaned_signs.twin, trojaned_signs, "mm-bd").p_value
    assert itself.p_value == pytest.approx(max(0.5, own), abs=0.01)
