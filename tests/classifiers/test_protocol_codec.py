import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from foretaste.classifiers.protocol_codec import DATATYPES, JSON_LENGTH, CodecError, Role, decode, encode

arrays = st.sampled_from(sorted(DATATYPES)).flatmap(
    lambda name: npst.arrays(
        DATATYPES[name],
        npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
        elements=npst.from_dtype(DATATYPES[name], allow_nan=False, allow_infinity=False),
    )
)
tensors = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), arrays, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(tensors, st.booleans(), st.sampled_from(["inputs", "outputs"]))
def test_what_is_written_is_read(written: dict[str, NDArray[Any]], binary: bool, role: Role) -> None:
    body, headers = encode(written, role, binary=binary, fields={"parameters": {"binary_data_output": binary}})
    assert (JSON_LENGTH in headers) == binary
    read = decode(body, role, headers.get(JSON_LENGTH))
    assert list(read) == list(written)
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)


def test_the_example_of_the_binary_extension() -> None:
    body, headers = encode({"input0": np.arange(4, dtype=np.uint32).reshape(2, 2)}, "inputs", binary=True)
    text = body[: int(headers[JSON_LENGTH])]
    assert json.loads(text) == {
        "inputs": [
            {"name": "input0", "datatype": "UINT32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
        ]
    }
    assert body[len(text) :] == b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"


def test_big_endian_arrays_are_turned() -> None:
    array = np.array([1, 2], dtype=">i4")
    for binary in (False, True):
        body, headers = encode({"a": array}, "inputs", binary=binary)
        assert decode(body, "inputs", headers.get(JSON_LENGTH))["a"].tolist() == [1, 2]


@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers(-5, 300).map(str))
def test_garbage_is_no_message(body: bytes, length: str | None) -> None:
    with suppress(CodecError):
        assert decode(body, "outputs", length) == {}


@given(json_values, json_values, json_values, json_values)
def test_json_of_any_kind_is_read_or_refused(shape: Any, datatype: Any, data: Any, parameters: Any) -> None:
    tensor = {"name": "a", "shape": shape, "datatype": datatype, "data": data, "parameters": parameters}
    for message in (tensor, [tensor], {"outputs": tensor}, {"outputs": [tensor]}, data):
        with suppress(CodecError):  # the datatype is never one of the protocol's
            assert decode(json.dumps(message).encode(), "outputs") == {}


@given(npst.array_shapes(max_dims=3, max_side=3).map(list) | st.lists(st.integers(-2, 3)), json_values)
def test_data_of_any_kind_is_read_or_refused(shape: list[int], data: Any) -> None:
    for datatype, dtype in DATATYPES.items():
        tensor = {"name": "a", "shape": shape, "datatype": datatype, "data": data}
        try:
            read = decode(json.dumps({"outputs": [tensor]}).encode(), "outputs")["a"]
        except CodecError:
            continue
        assert (read.dtype, list(read.shape)) == (dtype, shape)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4], **changes}


def test_nested_data() -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]], [1.0, 2, 3, 4]):
        read = decode(json.dumps({"outputs": [tensor(data=data)]}).encode(), "outputs")
        assert read["a"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ([tensor(datatype="BYTES")], "datatype 'BYTES'"),
        ([tensor(), tensor()], "two tensors with the name 'a'"),
        ([tensor(shape=[2, 3])], "has 4 values for a tensor of 6"),
        ([tensor(shape=[2, -2])], "not as the protocol has it"),
        ([tensor(shape=[2.0, 2])], "not as the protocol has it"),
        ([tensor(shape=[10**30])], "has 4 values"),
        ([tensor(shape=[1] * 9)], "not as the protocol has it"),
        ([tensor(data=[[1, 2, 3, 4]])], "has 4 values"),
        ([tensor(data=[[1, 2], [3]])], "no array"),
        ([tensor(data=["1", "2", "3", "4"])], "no array of FP32"),
        ([tensor(data=[1, None, 3, 4])], "no array of FP32"),
        ([tensor(data=[True, False, True, True])], "no array of FP32"),
        ([tensor(datatype="INT64", data=[1, 2, 3, 0.5])], "no array of INT64"),
        ([tensor(datatype="UINT8", data=[1, 2, 3, 256])], "outside the range of UINT8"),
        ([tensor(datatype="UINT8", data=[1, 2, 3, -1])], "outside the range of UINT8"),
        ([tensor(datatype="INT64", data=[1, 2, 3, 2**70])], "outside the range of INT64"),
        ([tensor(data=None)], "has 0 values"),
        ([tensor(parameters={"binary_data_size": 16})], "has 0 bytes for 4 FP32"),
        ([tensor(data=None, parameters={"binary_data_size": -1})], "not as the protocol has it"),
        (3, "not as the protocol has it"),
    ],
)
def test_wrong_tensors_are_refused(outputs: Any, complaint: str) -> None:
    with pytest.raises(CodecError, match=complaint):
        decode(json.dumps({"outputs": outputs}).encode(), "outputs")


def test_wrong_binary_data_is_refused() -> None:
    body, headers = encode({"a": np.zeros(4, dtype=np.float32)}, "outputs", binary=True)
    length = headers[JSON_LENGTH]
    for wrong, header in (
        (body[:-1], length),
        (body + b"x", length),
        (body, str(int(length) + 1)),
        (body, "-1"),
        (body, "²"),
        (body, str(len(body) + 1)),
        (body, None),
    ):
        with pytest.raises(CodecError):
            decode(wrong, "outputs", header)


def test_json_that_is_too_deep_is_refused() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    with pytest.raises(CodecError):
        decode(b'{"outputs":[{"name":"a","datatype":"FP32","shape":[1],"data":' + deep + b"}]}", "outputs")


@pytest.mark.parametrize("data", ['["' + "a" * 1000 + '", 1]', "[[1, null]]", "[" + "9" * 400 + ", 1]"])
def test_data_that_is_no_numbers_is_refused_before_it_takes_room(data: str) -> None:
    body = f'{{"outputs": [{{"name": "y", "datatype": "FP32", "shape": [2], "data": {data}}}]}}'
    with pytest.raises(CodecError, match="FP32"):
        decode(body.encode(), "outputs")
