"""A graph of models.nets.graph with its weights as a file of ONNX.

An ONNX file is a protocol buffer: messages inside messages, each a list of numbered fields. Writing
one takes few lines, so that those who serve need not install `onnx`; the numbers below are those of
its onnx.proto. Weights are passed on as they lie in memory, so that a large file takes no more.
"""

import struct
from collections.abc import Mapping

import numpy as np

from models.arrays import Float32
from models.fields import Invalid
from models.nets.graph import Constant, Graph, Node

OPSET = 21
IR_VERSION = 10  # the first with this opset: onnx 1.16, onnxruntime 1.18
MAX_BYTES = 2**31 - 1  # of a protocol buffer

Message = list[bytes | memoryview]  # in parts, to be written one after the other

_VARINT, _BYTES, _FLOAT32 = 0, 2, 5  # how a field's value is written
_ELEMENT = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}  # TensorProto.DataType
_ATTRIBUTE = {float: (2, 1), int: (3, 2), str: (4, 3), list: (8, 7)}  # field, AttributeType


def onnx_file(graph: Graph, weights: Mapping[str, Float32]) -> Message:
    """Return the content of a file, in parts. The number of images in a call is the dimension N.

    Raises Invalid for a network larger than such a file can be.
    """
    tensors = {**{name: weights[name] for name in graph.parameters}, **graph.constants}
    inputs = (_value(name, dtype, ("N", *shape)) for name, (dtype, shape) in graph.inputs.items())
    _, height, width = graph.inputs["x"][1]
    (channels,) = graph.parameters["conv_out.bias"]
    content = [
        *_field(1, *map(_node, graph.nodes)),
        *_field(2, "unet"),
        *_field(5, *(_tensor(name, array) for name, array in tensors.items())),
        *_field(11, *inputs),
        *_field(12, _value("y", np.float32, ("N", channels, height, width))),
    ]
    model = [
        *_field(1, IR_VERSION),
        *_field(2, "diffusion-service"),
        *_field(7, content),
        *_field(8, _field(2, OPSET)),
    ]
    if (size := _size(model)) > MAX_BYTES:
        raise Invalid.because(
            f"the network takes {size} bytes; a file of ONNX holds at most {MAX_BYTES}"
        )
    return model


def _node(node: Node) -> Message:
    return [
        *_field(1, *node.inputs),
        *_field(2, *node.outputs),
        *_field(4, node.op),
        *_field(5, *(_attribute(name, value) for name, value in node.attributes.items())),
    ]


def _attribute(name: str, value: object) -> Message:
    number, kind = _ATTRIBUTE[type(value)]
    values = value if isinstance(value, list) else [value]
    return [*_field(1, name), *_field(number, *values), *_field(20, kind)]


def _tensor(name: str, array: Constant) -> Message:
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return [
        *_field(1, *array.shape),
        *_field(2, _ELEMENT[array.dtype]),
        *_field(8, name),
        *_field(9, [data.data.cast("B")]),
    ]


def _value(name: str, dtype: type[np.generic], shape: tuple[int | str, ...]) -> Message:
    """Describe an input or the output; a length that is a name may be any."""
    lengths = (_field(1 if isinstance(length, int) else 2, length) for length in shape)
    tensor = [*_field(1, _ELEMENT[np.dtype(dtype)]), *_field(2, _field(1, *lengths))]
    return [*_field(1, name), *_field(2, _field(1, tensor))]


# Protocol buffers ---------------------------------------------------------------------------------


def _field(number: int, *values: int | float | str | Message) -> Message:
    """Return a field once for each value: its number and how the value is written, then that."""
    return [part for value in values for part in _written(number << 3, value)]


def _written(key: int, value: int | float | str | Message) -> Message:
    if isinstance(value, int):
        return [_varint(key | _VARINT), _varint(value)]
    if isinstance(value, float):
        return [_varint(key | _FLOAT32), struct.pack("<f", value)]
    content: Message = [value.encode()] if isinstance(value, str) else value
    return [_varint(key | _BYTES), _varint(_size(content)), *content]


def _varint(value: int) -> bytes:
    """Return an integer, lowest seven bits first; a negative one as its complement of 64 bits."""
    value &= 2**64 - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _size(message: Message) -> int:
    return sum(len(part) for part in message)
