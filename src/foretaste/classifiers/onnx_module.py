"""An ONNX file as a torch module, with gradients: for methods that look into a model, and for repairing it.

Convolutions, linear layers and batch normalisations become torch's own modules, whose parameters can be trained and
written back into the graph; everything else is computed as the graph says it. The metadata stays, so the preprocessing
and the classes of a model that was repaired are those of the file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from foretaste.classifiers.layout import Declared, Layout, choose_output
from foretaste.classifiers.onnx import read_classes, read_model
from foretaste.classifiers.preprocessing import METADATA_KEY, from_metadata
from foretaste.errors import UsageError
from foretaste.io.atomic import atomic_path
from foretaste.sanitising import shown

Values = list[Tensor | None]
"""A node's inputs; None is one that was left out."""
Attributes = dict[str, Any]
Operator = Callable[[Values, Attributes], Tensor]

ELEMENTS = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}
"""The types of numbers that are known."""


class OnnxModule(nn.Module):
    """Computes what an ONNX graph does, on raw pixel values.

    It takes ``(N, H, W, C)``, uint8 or float32 in [0, 255], does to them what the file's metadata states (see
    ``OnnxModel``), and returns logits ``float32 (N, K)``: where the graph ends in a softmax, what goes into it.

    Args:
        path: the file.

    Attributes:
        classes: the K class names if the file states them, or None.
        sample_shape: ``(H, W, C)`` of the images it takes if the file fixes them, or None.

    Raises:
        UsageError: there is no such file, or it fixes how many images it takes at a time, uses an operator that is not
            known here, or one weight twice, or states a preprocessing that does not go with its input.
        ForetasteError: it is not ONNX, does not take images and answer with scores, or its metadata is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        source = str(path)
        self._model = onnx.load_model_from_string(read_model(Path(path)))
        graph = self._model.graph
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        inputs = [declared(one) for one in graph.input if one.name not in constants]
        metadata = {entry.key: entry.value for entry in self._model.metadata_props}
        self._layout = Layout.of(inputs, source).preprocessed(from_metadata(metadata.get(METADATA_KEY), source))
        if self._layout.batch is not None:
            raise UsageError(
                f"{source} takes {self._layout.batch} images at a time, which cannot be read into torch here"
            )
        self._output = choose_output([declared(one) for one in graph.output], source).name
        self.classes = read_classes(metadata.get("classes"))
        self.sample_shape = self._layout.sample_shape
        unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys() - LAYERS.keys() - {"Constant"})
        if unknown:
            raise UsageError(f"{source} uses {', '.join(map(shown, unknown))}, which cannot be read into torch here")
        self.layers = nn.ModuleDict()
        self._written: dict[str, list[tuple[str, str, bool]]] = {}
        self._nodes: list[tuple[onnx.NodeProto, Attributes]] = []
        self._constants: list[str] = []
        for number, node in enumerate(graph.node):
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Constant":
                constants[node.output[0]] = constant(attributes, source)
                continue
            if node.op_type in ("Softmax", "LogSoftmax") and node.output[0] == self._output:
                self._output = node.input[0]
                continue
            if node.op_type in LAYERS and all(name in constants for name in node.input[1:]):
                self._add_layer(str(number), node, attributes, constants, source)
            elif node.op_type not in OPERATORS:
                raise UsageError(f"{source} computes the weights of {shown(node.op_type)}, which cannot be read here")
            self._nodes.append((node, attributes))
        for number, (name, array) in enumerate(constants.items()):
            self.register_buffer(f"constant_{number}", torch.from_numpy(np.array(array)))
            self._constants.append(name)
        self.eval()

    def _add_layer(
        self, key: str, node: onnx.NodeProto, attributes: Attributes, constants: dict[str, Any], source: str
    ) -> None:
        """Make a module of a node whose weights are constants, and note where its parameters are to be written."""
        layer, transposed = LAYERS[node.op_type](attributes, [constants[name] for name in node.input[1:]], source)
        names = ("weight", "bias", "running_mean", "running_var")
        written = [
            (own, name, transposed and own == "weight") for own, name in zip(names, node.input[1:], strict=False)
        ]
        taken = {name for places in self._written.values() for _, name, _ in places}
        if any(name in taken for _, name, _ in written):
            raise UsageError(f"{source} uses one weight in two layers, which cannot be read into torch here")
        self.layers[key] = layer
        self._written[key] = written
        node.name = key

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of raw pixel values ``(N, H, W, C)``."""
        way = self._layout.preprocessing
        given = way.order(images).float()
        if self._layout.dtype != np.uint8:
            given = way.scaled(given, partial(torch.tensor, dtype=torch.float32, device=given.device))
        values: dict[str, Tensor | None] = {"": None}
        values |= {name: getattr(self, f"constant_{number}") for number, name in enumerate(self._constants)}
        values[self._layout.name] = given.permute(0, 3, 1, 2) if self._layout.channels_first else given
        for node, attributes in self._nodes:
            if node.name in self.layers:
                values[node.output[0]] = self.layers[node.name](values[node.input[0]])
            else:
                values[node.output[0]] = OPERATORS[node.op_type]([values[name] for name in node.input], attributes)
        logits = values[self._output]
        assert logits is not None
        return logits

    def export(self, path: str | Path) -> None:
        """Write the graph with the layers' parameters as they are now.

        Raises:
            ForetasteError: the file cannot be written.
        """
        model = copy.deepcopy(self._model)
        initializers = {one.name: one for one in model.graph.initializer}
        for key, places in self._written.items():
            state = self.layers[key].state_dict()
            for own, name, transposed in places:
                array = state[own].cpu().numpy()
                value = numpy_helper.from_array(np.ascontiguousarray(array.T if transposed else array), name)
                initializers[name].CopyFrom(value)
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString())


def declared(argument: Any) -> Declared:
    """Return an input or output of a graph in the terms that all models share."""
    tensor = argument.type.tensor_type
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError):
        dtype = None
    if not tensor.HasField("shape"):
        return Declared(argument.name, dtype, None)
    return Declared(argument.name, dtype, tuple(size.dim_value or None for size in tensor.shape.dim))


def constant(attributes: Attributes, source: str) -> Any:
    """Return the array that a Constant node holds.

    Raises:
        UsageError: it is no array of numbers.
    """
    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    for name in ("value_int", "value_ints", "value_float", "value_floats"):
        if name in attributes:
            return np.array(attributes[name], dtype=np.int64 if "int" in name else np.float32)
    raise UsageError(f"{source} has a constant that is no array of numbers")


# Layers: what has weights. Each returns the module, and whether the graph holds its weight transposed.


def convolution(attributes: Attributes, weights: list[Any], source: str) -> tuple[nn.Module, bool]:
    """Return a Conv node as a module."""
    weight = weights[0]
    pads = attributes.get("pads", [0, 0, 0, 0])
    if weight.ndim != 4 or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UsageError(f"{source} has a convolution that is not over images, or is padded automatically")
    groups = attributes.get("group", 1)
    symmetric = list(pads[:2]) == list(pads[2:])
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=tuple(pads[:2]) if symmetric else 0,
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=groups,
        bias=len(weights) > 1,
    )
    fill(layer, weight, weights[1] if len(weights) > 1 else None)
    if symmetric:
        return layer, False
    top, left, bottom, right = pads
    return Padded(layer, (left, right, top, bottom)), False


class Padded(nn.Conv2d):
    """A convolution whose sides are padded differently, with zeros."""

    def __init__(self, inner: nn.Conv2d, sides: tuple[int, int, int, int]) -> None:
        super().__init__(
            inner.in_channels,
            inner.out_channels,
            inner.kernel_size,  # type: ignore[arg-type]
            stride=inner.stride,  # type: ignore[arg-type]
            dilation=inner.dilation,  # type: ignore[arg-type]
            groups=inner.groups,
            bias=inner.bias is not None,
        )
        self.load_state_dict(inner.state_dict())
        self.sides = sides

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, C, H, W)``."""
        return super().forward(nn.functional.pad(inputs, self.sides))


def linear(attributes: Attributes, weights: list[Any], source: str) -> tuple[nn.Module, bool]:
    """Return a Gemm or MatMul node as a module."""
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA", 0):
        raise UsageError(f"{source} has a Gemm with factors, or of a transposed input, which cannot be read here")
    weight, transposed = weights[0], not attributes.get("transB", 0)
    if weight.ndim != 2 or (len(weights) > 1 and weights[1].ndim != 1):
        raise UsageError(f"{source} multiplies by a weight that is no matrix, which cannot be read here")
    if transposed:
        weight = weight.T
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=len(weights) > 1)
    fill(layer, weight, weights[1] if len(weights) > 1 else None)
    return layer, transposed


def batch_norm(attributes: Attributes, weights: list[Any], source: str) -> tuple[nn.Module, bool]:
    """Return a BatchNormalization node as a module."""
    scale, bias, mean, variance = weights
    layer = nn.BatchNorm2d(len(scale), eps=attributes.get("epsilon", 1e-5))
    fill(layer, scale, bias)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(torch.from_numpy(np.array(mean)))
    layer.running_var.copy_(torch.from_numpy(np.array(variance)))
    return layer, False


@torch.no_grad()
def fill(layer: Any, weight: Any, bias: Any | None) -> None:
    """Put arrays into a layer."""
    layer.weight.copy_(torch.from_numpy(np.array(weight)))
    if bias is not None:
        layer.bias.copy_(torch.from_numpy(np.array(bias)))


LAYERS: dict[str, Callable[[Attributes, list[Any], str], tuple[nn.Module, bool]]] = {
    "Conv": convolution,
    "Gemm": linear,
    "MatMul": linear,
    "BatchNormalization": batch_norm,
}
"""The nodes that have weights."""


# Operators: what has none.


def tensor(value: Tensor | None) -> Tensor:
    """Return an input that must be there."""
    assert value is not None
    return value


def listed(value: Tensor | None) -> list[int]:
    """Return an input that holds sizes, places or axes."""
    return [int(number) for number in tensor(value).flatten().tolist()]


def axes_of(values: Values, attributes: Attributes, place: int = 1) -> list[int]:
    """Return the axes that a node names: in an attribute before opset 13 or 18, in an input since."""
    if len(values) > place and values[place] is not None:
        return listed(values[place])
    return list(attributes.get("axes", ()))


def reshape(values: Values, attributes: Attributes) -> Tensor:
    """Compute Reshape; a size of 0 is that of the input."""
    data, sizes = tensor(values[0]), listed(values[1])
    if not attributes.get("allowzero", 0):
        sizes = [data.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return data.reshape(sizes)


def cut(values: Values, attributes: Attributes) -> Tensor:
    """Compute Slice with steps above 0."""
    data, starts, ends = tensor(values[0]), listed(values[1]), listed(values[2])
    axes = listed(values[3]) if len(values) > 3 and values[3] is not None else list(range(len(starts)))
    steps = listed(values[4]) if len(values) > 4 and values[4] is not None else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def gather(values: Values, attributes: Attributes) -> Tensor:
    """Compute Gather."""
    data, indices, axis = tensor(values[0]), tensor(values[1]), attributes.get("axis", 0)
    axis %= data.ndim
    found = data.index_select(axis, indices.flatten() % data.shape[axis])
    return found.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def squeeze(values: Values, attributes: Attributes) -> Tensor:
    """Compute Squeeze."""
    data, axes = tensor(values[0]), axes_of(values, attributes)
    return data.squeeze(tuple(axes)) if axes else data.squeeze()


def unsqueeze(values: Values, attributes: Attributes) -> Tensor:
    """Compute Unsqueeze."""
    data, axes = tensor(values[0]), axes_of(values, attributes)
    rank = data.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        data = data.unsqueeze(axis)
    return data


def mean(values: Values, attributes: Attributes) -> Tensor:
    """Compute ReduceMean."""
    data, axes = tensor(values[0]), axes_of(values, attributes)
    return data.mean(tuple(axes) or tuple(range(data.ndim)), keepdim=bool(attributes.get("keepdims", 1)))


def pool(values: Values, attributes: Attributes, *, largest: bool) -> Tensor:
    """Compute MaxPool or AveragePool over images."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    kernel = tuple(attributes["kernel_shape"])
    strides = tuple(attributes.get("strides", (1, 1)))
    ceil = bool(attributes.get("ceil_mode", 0))
    data = tensor(values[0])
    if largest:
        top, left, bottom, right = pads
        data = nn.functional.pad(data, (left, right, top, bottom), value=-torch.inf)
        return nn.functional.max_pool2d(data, kernel, strides, ceil_mode=ceil)
    if list(pads[:2]) != list(pads[2:]):
        raise UsageError("the model has an average over windows whose sides are padded differently")
    counts = bool(attributes.get("count_include_pad", 0))
    return nn.functional.avg_pool2d(data, kernel, strides, tuple(pads[:2]), ceil, counts)


def clip(values: Values, attributes: Attributes) -> Tensor:
    """Compute Clip; the bounds are attributes before opset 11."""
    low = values[1] if len(values) > 1 else attributes.get("min")
    high = values[2] if len(values) > 2 else attributes.get("max")
    if low is None and high is None:
        return tensor(values[0])
    return tensor(values[0]).clamp(low, high)


def flatten(values: Values, attributes: Attributes) -> Tensor:
    """Compute Flatten into a matrix."""
    data, axis = tensor(values[0]), attributes.get("axis", 1)
    return data.reshape(int(np.prod(data.shape[: axis % (data.ndim + 1)])), -1)


def division(values: Values, attributes: Attributes) -> Tensor:
    """Compute Div; of integers it is towards zero."""
    first, second = tensor(values[0]), tensor(values[1])
    floating = first.is_floating_point() or second.is_floating_point()
    return first / second if floating else torch.div(first, second, rounding_mode="trunc")


OPERATORS: dict[str, Operator] = {
    "Add": lambda v, a: tensor(v[0]) + tensor(v[1]),
    "Sub": lambda v, a: tensor(v[0]) - tensor(v[1]),
    "Mul": lambda v, a: tensor(v[0]) * tensor(v[1]),
    "Div": division,
    "Pow": lambda v, a: tensor(v[0]) ** tensor(v[1]),
    "Sqrt": lambda v, a: tensor(v[0]).sqrt(),
    "Exp": lambda v, a: tensor(v[0]).exp(),
    "Neg": lambda v, a: -tensor(v[0]),
    "Relu": lambda v, a: tensor(v[0]).relu(),
    "LeakyRelu": lambda v, a: nn.functional.leaky_relu(tensor(v[0]), a.get("alpha", 0.01)),
    "Elu": lambda v, a: nn.functional.elu(tensor(v[0]), a.get("alpha", 1.0)),
    "Sigmoid": lambda v, a: tensor(v[0]).sigmoid(),
    "HardSigmoid": lambda v, a: (a.get("alpha", 0.2) * tensor(v[0]) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda v, a: nn.functional.hardswish(tensor(v[0])),
    "Tanh": lambda v, a: tensor(v[0]).tanh(),
    "Erf": lambda v, a: torch.erf(tensor(v[0])),
    "Gelu": lambda v, a: nn.functional.gelu(tensor(v[0]), approximate=a.get("approximate", b"none").decode()),
    "Softmax": lambda v, a: tensor(v[0]).softmax(a.get("axis", -1)),
    "LogSoftmax": lambda v, a: tensor(v[0]).log_softmax(a.get("axis", -1)),
    "Clip": clip,
    "MatMul": lambda v, a: tensor(v[0]) @ tensor(v[1]),
    "MaxPool": lambda v, a: pool(v, a, largest=True),
    "AveragePool": lambda v, a: pool(v, a, largest=False),
    "GlobalAveragePool": lambda v, a: tensor(v[0]).mean((2, 3), keepdim=True),
    "ReduceMean": mean,
    "Identity": lambda v, a: tensor(v[0]),
    "Dropout": lambda v, a: tensor(v[0]),
    "Cast": lambda v, a: tensor(v[0]).to(ELEMENTS[a["to"]]),
    "Shape": lambda v, a: torch.tensor(tensor(v[0]).shape)[a.get("start", 0) : a.get("end")],
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": lambda v, a: tensor(v[0]).permute(a.get("perm", tuple(reversed(range(tensor(v[0]).ndim))))),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": lambda v, a: torch.cat([tensor(one) for one in v], dim=a["axis"]),
    "Slice": cut,
    "Gather": gather,
    "Range": lambda v, a: torch.arange(*(tensor(one).item() for one in v)),
    "Expand": lambda v, a: tensor(v[0]) * torch.ones(listed(v[1]), dtype=tensor(v[0]).dtype),
}
"""The nodes that have no weights."""
