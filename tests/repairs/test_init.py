"""What repairs refuse, how they are found, and their parts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import Net, build
from foretaste.nets.net import Standardise
from foretaste.progress import OnProgress
from foretaste.repairs import REPAIRS, Mended, Repair, find, names, repair
from foretaste.repairs.abl import not_own
from foretaste.repairs.anp import Neurons, prunable
from foretaste.repairs.i_bau import IBAU
from foretaste.repairs.nad import attended, attention
from foretaste.repairs.tuning import prune_most
from foretaste.samples import Samples


@pytest.fixture
def net() -> Net:
    return build("convnet", (16, 16, 3), ["a", "b"], generator=torch.Generator().manual_seed(0), width=4).eval()


@pytest.fixture
def samples(net: Net) -> Samples:
    """Return 30 images under the labels that the net gives them."""
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        labels = net(torch.from_numpy(images)).argmax(dim=1).numpy()
    return Samples.from_arrays(images, labels, ["a", "b"])


@dataclass(frozen=True, kw_only=True)
class Noting:
    """Leaves the model as it is, and notes what it was given."""

    name: ClassVar[str] = "noting"
    summary: ClassVar[str] = "notes"
    needs_training_set: ClassVar[bool] = False
    fewest_clean: ClassVar[int] = 0

    def mend(
        self, net: nn.Module, *, train: Samples | None, clean: Samples | None, seed: int, on_progress: OnProgress
    ) -> Mended:
        return Mended(net=net, facts={"clean": clean})


def test_names_and_protocol() -> None:
    assert set(REPAIRS) <= set(names())
    for name, method in REPAIRS.items():
        assert isinstance(method(), Repair)
        assert method.name == name
    with pytest.raises(UsageError, match=r"no repair 'glue'; known: .*i-bau"):
        find("glue")


def test_missing_and_small_sets_are_refused(net: Net, samples: Samples) -> None:
    with pytest.raises(UsageError, match="works on the set that the model was trained on"):
        repair(net, method="abl", clean=samples)
    with pytest.raises(UsageError, match="needs 20 clean samples or more, not 19"):
        repair(net, method="fine-tuning", clean=samples[:19])
    with pytest.raises(UsageError, match="needs 20 clean samples or more, not 0"):
        repair(net, method="anp")


def test_samples_of_another_model_are_refused(net: Net, samples: Samples) -> None:
    other = Samples.from_arrays(samples.inputs, samples.labels, ["x", "y"])
    with pytest.raises(UsageError, match="clean set's classes are not those of the model"):
        repair(net, method="fine-tuning", clean=other)
    with pytest.raises(UsageError, match="gets 0% of the clean set right"):
        repair(net, method="fine-tuning", clean=samples.with_labels(1 - samples.labels))


def test_nan_weights_are_refused(net: Net, samples: Samples) -> None:
    with torch.no_grad():
        net.head.weight[0, 0] = torch.inf
    with pytest.raises(ForetasteError, match="NaN or infinite"):
        repair(net, method="fine-tuning", clean=samples)


def test_a_repair_that_diverged_is_refused(net: Net, samples: Samples) -> None:
    with pytest.raises(ForetasteError, match=r"i-bau left weights that are NaN or infinite: .* a lower learning rate"):
        repair(net, method="i-bau", clean=samples, learning_rate=1e30)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))],
)
def test_the_module_given_stays_on_its_device_and_in_training_mode(net: Net, samples: Samples, device: str) -> None:
    net.to(device).train()
    repaired = repair(net, method="fine-tuning", clean=samples, epochs=1)
    assert all(module.training for module in net.modules())
    assert net.head.weight.device.type == device
    assert not repaired.net.training


def test_an_empty_set_is_none(net: Net, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPAIRS, "noting", Noting)
    assert repair(net, method="noting", clean=samples[:0]).facts == {"clean": None}
    with pytest.raises(UsageError, match="works on the set that the model was trained on"):
        repair(net, method="abl", train=samples[:0])


def test_masked_and_changed_neurons_give_what_they_should(net: Net) -> None:
    layer = prunable(net)[0]
    assert isinstance(layer, nn.BatchNorm2d)
    with torch.no_grad():
        layer.bias.fill_(0.5)
    inputs = torch.randn((2, 4, 3, 3), generator=torch.Generator().manual_seed(1))
    plain = layer(inputs)
    neurons = Neurons(layer)
    torch.testing.assert_close(layer(inputs), plain)
    with torch.no_grad():
        neurons.mask[0] = 0.1
        neurons.changes[1, 1] = 1.0
    changed = layer(inputs)
    torch.testing.assert_close(changed[:, 0], 0.1 * (plain[:, 0] - 0.5) + 0.5)
    torch.testing.assert_close(changed[:, 1], plain[:, 1] + 0.5)
    neurons.hook.remove()
    torch.testing.assert_close(layer(inputs), plain)


def test_as_much_is_pruned_as_accuracy_allows() -> None:
    # Each of ten classes has a feature of its own: what is pruned costs a tenth each.
    head = nn.Linear(10, 10, bias=False)
    labels = np.arange(10)
    clean = Samples.from_arrays(np.eye(10, dtype=np.float32), labels, [str(label) for label in labels])

    def prune(count: int) -> None:
        with torch.no_grad():
            head.weight.copy_(torch.eye(10))
            head.weight[:, 10 - count :] = 0

    prune(0)
    # A sample of a pruned class ties, and the first label wins: that of class 0.
    assert prune_most(head, clean, prune, 9, 0.35) == 3
    assert int((head.weight == 0).all(dim=0).sum()) == 3
    prune(0)
    assert prune_most(head, clean, prune, 9, 0) == 0
    assert prune_most(head, clean, prune, 0, 0.5) == 0


def test_i_bau_minds_the_samples_as_they_are(net: Net, samples: Samples) -> None:
    inputs, labels = torch.from_numpy(samples.inputs).float(), torch.from_numpy(samples.labels)

    def loss(perturbation: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net(inputs + perturbation), labels)

    weights = list(net.head.parameters())[:1]
    perturbation = torch.full_like(inputs[0], 20.0).requires_grad_()
    plain, under = (
        torch.autograd.grad(loss(some), weights)[0] for some in (torch.zeros_like(perturbation), perturbation)
    )
    [mixed] = IBAU(share=0.25, iterations=0).gradient(loss, perturbation, weights)
    torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * under)


def test_unlearning_has_a_slope_where_the_model_is_certain_and_ends_at_nothing() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    loss = not_own(logits, torch.tensor([0]))
    [slope] = torch.autograd.grad(loss, [logits])
    torch.testing.assert_close(loss.detach(), torch.tensor(30 - np.log(2), dtype=torch.float32))
    torch.testing.assert_close(slope, torch.tensor([[1.0, -0.5, -0.5]]))
    assert float(not_own(torch.tensor([[-30.0, 0.0, 0.0]]), torch.tensor([0]))) < 1e-6


def test_attention_is_where_channels_are_strong(net: Net, samples: Samples) -> None:
    output = torch.zeros((1, 2, 2, 2))
    output[0, :, 1, 0] = 3
    torch.testing.assert_close(attention(output), torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    # One of each resolution: 16, 8, 4 and 2 pixels a side.
    assert len(attended(net, samples)) == 4


def test_what_no_weight_changes_gets_no_attention(samples: Samples) -> None:
    preprocess = Standardise(samples.sample_shape)
    preprocess.measure(samples.inputs)
    net = nn.Sequential(preprocess, nn.Conv2d(3, 4, 2, stride=2), nn.Flatten(), nn.Linear(256, 2))
    assert attended(net, samples) == ["1"]


def test_the_perturbation_keeps_within_its_radius_and_raises_the_loss(net: Net, samples: Samples) -> None:
    inputs, labels = torch.from_numpy(samples.inputs).float(), torch.from_numpy(samples.labels)
    method = IBAU(radius=0.1)

    def loss(perturbation: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(net(inputs + perturbation), labels)

    perturbation = method.perturbation(loss, inputs)
    assert float(perturbation.detach().pow(2).mean().sqrt()) <= 0.1 * 255 * 1.001
    assert loss(perturbation) > loss(torch.zeros_like(perturbation))
    weights = list(net.parameters())
    gradients = method.gradient(loss, perturbation, weights)
    assert [one.shape for one in gradients] == [one.shape for one in weights]
    assert all(bool(torch.isfinite(one).all()) for one in gradients)
