"""What inspectors refuse, and how they are found."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from foretaste.classifiers.python_callable import PythonCallable
from foretaste.errors import ForetasteError, UsageError
from foretaste.inspectors import INSPECTORS, Inspector, find, inspect, names, subject_of
from foretaste.inspectors.final_layer import last_linear
from foretaste.nets import Net, build
from foretaste.samples import Images, Labels, Samples

if TYPE_CHECKING:
    from tests.conftest import SmallSigns


def brightness(images: Images) -> Labels:
    levels: Labels = (images.mean(axis=(1, 2, 3)) // 64).astype(np.int64)
    return levels


@pytest.fixture
def grey() -> Samples:
    """Return 80 images of four levels of brightness, which are their classes."""
    labels = np.arange(80) % 4
    images = np.broadcast_to((64 * labels + 30)[:, None, None, None], (80, 16, 16, 3))
    return Samples.from_arrays(images.astype(np.uint8), labels)


@pytest.fixture
def net() -> Net:
    return build("convnet", (16, 16, 3), [str(k) for k in range(4)], generator=torch.Generator().manual_seed(0))


def test_names_and_protocol() -> None:
    assert set(INSPECTORS) <= set(names())
    for name, method in INSPECTORS.items():
        assert isinstance(method(), Inspector)
        assert method.name == name
    with pytest.raises(UsageError, match=r"no inspector 'x-ray'; known: .*mm-bd"):
        find("x-ray")


def test_a_method_that_needs_weights_refuses_a_function(grey: Samples) -> None:
    with pytest.raises(UsageError, match="needs the model's weights"):
        inspect(PythonCallable(brightness), grey, method="mm-bd")


def test_a_small_clean_set_is_refused_with_the_number_that_is_needed(grey: Samples, net: Net) -> None:
    with pytest.raises(UsageError, match="needs 40 clean images or more, not 39"):
        inspect(net, grey[:39], method="neural-cleanse")
    with pytest.raises(UsageError, match="needs 40 clean images or more, not 0"):
        inspect(net, method="neural-cleanse")


def test_a_model_that_hardly_knows_the_clean_set_is_refused(grey: Samples, net: Net) -> None:
    with pytest.raises(UsageError, match=r"gets \d+% of the clean set right"):
        inspect(net, grey.with_labels((grey.labels + 1) % 4), method="mm-bd")


def test_other_classes_shapes_and_features_are_refused(grey: Samples, net: Net, small_signs: "SmallSigns") -> None:
    with pytest.raises(UsageError, match="classes are not those of the model"):
        inspect(net, small_signs(40, 0), method="mm-bd")
    with pytest.raises(UsageError, match="shape"):
        inspect(net, Samples.from_arrays(grey.inputs[:, :8], grey.labels), method="mm-bd")
    with pytest.raises(UsageError, match="feature vectors"):
        inspect(net, Samples.from_arrays(np.zeros((8, 3)), np.arange(8) % 4), method="mm-bd")


def test_nan_weights_are_refused(net: Net) -> None:
    with torch.no_grad():
        net.head.weight[0, 0] = torch.nan
    with pytest.raises(ForetasteError, match="NaN or infinite"):
        inspect(net, method="mm-bd")


def test_too_few_classes_rates_and_null_models_are_refused(net: Net) -> None:
    two = build("convnet", (16, 16, 3), ["a", "b"], generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="needs 4 or more; the model has 2"):
        inspect(two, method="final-layer")
    with pytest.raises(UsageError, match="false-alarm rate"):
        inspect(net, method="final-layer", false_alarm_rate=0)
    with pytest.raises(UsageError, match="too few to measure"):
        inspect(net, method="final-layer", null=[subject_of(net, None)])
    with pytest.raises(UsageError, match="no hyperparameter 'speed'"):
        inspect(net, method="final-layer", speed=3)


def test_a_model_that_says_nothing_of_its_inputs_needs_clean_images() -> None:
    with pytest.raises(UsageError, match="give clean images"):
        subject_of(PythonCallable(brightness), None)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))],
)
def test_the_module_given_stays_on_its_device_and_in_training_mode(net: Net, device: str) -> None:
    net.to(device).train()
    inspect(net, method="final-layer")
    assert all(module.training for module in net.modules())
    assert net.head.weight.device.type == device


@pytest.mark.parametrize("model", [nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(768, 5))])
def test_a_model_without_a_last_layer_of_the_classes_is_refused_in_the_name_of_the_method(model: nn.Module) -> None:
    with pytest.raises(UsageError, match="fine-pruning needs a model that ends in a linear layer"):
        last_linear(model, 4, "fine-pruning")
