import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.errors import UsageError
from foretaste.nets import NETS, Net, build

CLASSES = ("stop", "yield", "turn")


def net_of(name: str | None, shape: tuple[int, ...], seed: int = 0, width: int | None = None) -> Net:
    return build(name, shape, CLASSES, generator=torch.Generator().manual_seed(seed), width=width)


def raw(shape: tuple[int, ...], n: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if len(shape) == 3:
        return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    return torch.randn((n, *shape), generator=generator)


@pytest.mark.parametrize(
    ("name", "shape", "n_features"),
    [
        ("compact-resnet", (16, 16, 3), 128),
        ("compact-resnet", (28, 28, 1), 128),
        ("compact-resnet", (33, 47, 3), 128),
        ("compact-resnet", (96, 96, 3), 128),
        ("resnet18", (28, 28, 1), 512),
        ("resnet18", (32, 32, 3), 512),
        ("convnet", (32, 32, 3), 64),
        ("convnet", (28, 47, 1), 64),
        ("vgg11", (28, 28, 1), 512),
        ("vgg11", (64, 64, 3), 512),
        ("vit", (28, 28, 1), 64),
        ("vit", (33, 47, 3), 64),
        ("vit", (64, 64, 3), 64),
        ("mlp", (7,), 256),
    ],
)
def test_raw_inputs_give_features_and_logits(name: str, shape: tuple[int, ...], n_features: int) -> None:
    net, inputs = net_of(name, shape).eval(), raw(shape)
    features = net.features(inputs)
    assert features.shape == (4, n_features)
    assert torch.equal(net(inputs), net.head(features))
    assert net(inputs).shape == (4, 3)


def test_resnet18_has_the_parameters_of_the_literature() -> None:
    net = build("resnet18", (32, 32, 3), [str(k) for k in range(10)], generator=torch.Generator())
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_173_962


def test_the_samples_decide_the_default() -> None:
    assert net_of(None, (32, 32, 3)).name == "compact-resnet"
    assert net_of(None, (9,)).name == "mlp"


@pytest.mark.parametrize("name", NETS)
def test_weights_come_from_the_generator_alone(name: str) -> None:
    shape = (9,) if name == "mlp" else (32, 32, 3)
    before = torch.random.get_rng_state()
    one, same, other = net_of(name, shape), net_of(name, shape), net_of(name, shape, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    for key, value in one.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, same.state_dict()[key])
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("nonesuch", (32, 32, 3), "no net 'nonesuch'; known: compact-resnet, resnet18, convnet, vgg11, vit, mlp"),
        ("mlp", (32, 32, 3), "takes feature vectors"),
        ("resnet18", (9,), "takes images"),
        ("vgg11", (9,), "takes images"),
        ("vit", (9,), "takes images"),
        ("compact-resnet", (32, 12, 3), "not 12×32"),
    ],
)
def test_a_net_that_does_not_fit_is_bad_usage(name: str, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        net_of(name, shape)


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (5,)])
def test_the_preprocessing_standardises(shape: tuple[int, ...]) -> None:
    net, inputs = net_of(None, shape), raw(shape, 200)
    net.preprocess.measure(inputs.numpy())
    ready = net.preprocess(inputs)
    axes = (0, 2, 3) if len(shape) == 3 else (0,)
    torch.testing.assert_close(ready.mean(axes), torch.zeros(shape[-1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(ready.std(axes, correction=0), torch.ones(shape[-1]), atol=1e-4, rtol=0)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    rows: NDArray[np.float32] = np.array([[0.1, 5], [0.1, 7]] * 20, dtype=np.float32)
    net = net_of(None, (2,))
    net.preprocess.measure(rows)
    assert net.preprocess(torch.from_numpy(rows)).abs().max() <= 1.001


def test_images_stay_in_channels_last_order() -> None:
    net = net_of("compact-resnet", (32, 32, 3))
    ready = net.preprocess(raw((32, 32, 3)))
    assert ready.is_contiguous(memory_format=torch.channels_last)
    assert net.body[:3](ready).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [
        ("compact-resnet", (32, 32, 3), [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]),
        ("resnet18", (32, 32, 3), [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
        ("convnet", (32, 32, 3), [(16, 16, 16), (32, 8, 8), (64, 4, 4)]),
        ("vgg11", (32, 32, 3), [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]),
        ("vit", (32, 30, 3), [(64, 64)] * 4),
        ("mlp", (7,), [(256,), (256,)]),
    ],
)
def test_a_net_names_its_stages(name: str, shape: tuple[int, ...], outputs: list[tuple[int, ...]]) -> None:
    net, seen = net_of(name, shape).eval(), []
    for stage in net.stages:
        stage.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    net(raw(shape))
    assert seen == outputs
    assert (len(net.normalisations) > 0) == (name != "vit")


def test_a_vision_transformer_sees_every_pixel_of_odd_sides() -> None:
    net, image = net_of("vit", (17, 18, 3)).eval(), raw((17, 18, 3), 1)
    corner = image.clone()
    corner[0, 16, 17] = 255 - corner[0, 16, 17]
    assert not torch.equal(net(image), net(corner))


def test_a_vision_transformer_has_as_many_channels_in_every_head() -> None:
    with pytest.raises(UsageError, match="multiples of 4, not 6"):
        net_of("vit", (32, 32, 3), width=6)


@pytest.mark.parametrize("name", ["compact-resnet", "resnet18", "convnet", "vgg11"])
def test_odd_widths_learn_by_the_right_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of channels that are no multiple of 8, oneDNN gets some convolutions' gradients wrong on some processors.
    net = net_of(name, (16, 16, 3), width=4).eval()
    inputs = raw((16, 16, 3), 32)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(net(inputs).square().sum(), list(net.parameters())))

    fast = gradients()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    plain = gradients()
    for one, other in zip(fast, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
    strides = {module.stride for module in net.modules() if getattr(module, "kernel_size", None) == (1, 1)}
    assert strides <= {(1, 1)}
