"""Open Inference Protocol v2, binary tensor extension: a JSON header, then one BYTES tensor with one frame in it.

A BYTES element is its length, 4 bytes little-endian, and the bytes. The header's length travels as an HTTP header, so
ciphertexts are never base64. Both parties read here what the other wrote.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import Any

from hepipe.errors import MalformedFrame
from hepipe.models.codec import read_object
from hepipe.service.limits import HEADER_JSON_BYTES

LENGTH_HEADER = "Inference-Header-Content-Length"
INPUT, OUTPUT = "x", "scores"
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SEQ = 2**53
_TENSOR_FIELDS = {"name", "datatype", "shape", "parameters"}


@dataclass(frozen=True)
class Binding:
    """What a request says of itself: its id, echoed, and its place in a session.

    session, seq  a client that sends both gets the stored reply if it sends the same request again; without them the
                  request's own digest stands for them
    """

    request_id: str = ""
    session: str = ""
    seq: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.request_id, str) or len(self.request_id) > 128:
            raise MalformedFrame("the id of a request is a text of at most 128 characters")
        if not isinstance(self.session, str) or (self.session and not SESSION.fullmatch(self.session)):
            raise MalformedFrame("session: letters, digits, '_' and '-', at most 64")
        if type(self.seq) is not int or not 0 <= self.seq < MAX_SEQ:
            raise MalformedFrame("seq is a whole number from 0 to 2**53")


def pack_request(frame: bytes, binding: Binding) -> tuple[bytes, int]:
    """The body of an infer request and the length of its header."""
    parameters: dict[str, Any] = {"binary_data_output": True}
    if binding.session:
        parameters |= {"session": binding.session, "seq": binding.seq}
    body, size = _with_tensor("inputs", INPUT, frame, {"id": binding.request_id, "parameters": parameters})
    return body, size


def unpack_request(body: bytes, length: str | None) -> tuple[bytes, Binding]:
    """The frame of an infer request and what it is bound to; MalformedFrame for anything else."""
    header, binary = _split(body, length)
    frame = _tensor(header, "inputs", INPUT, binary)
    if not set(header) <= {"id", "inputs", "outputs", "parameters"}:
        raise MalformedFrame(f"fields {sorted(header)} are not those of an infer request")
    parameters = header.get("parameters", {})
    if not isinstance(parameters, dict):
        raise MalformedFrame("the parameters are no object")
    _check_outputs(header.get("outputs"), parameters)
    known = {name: parameters[name] for name in ("session", "seq") if name in parameters}
    return frame, Binding(header.get("id", ""), **known)


def _check_outputs(outputs: Any, parameters: dict[str, Any]) -> None:
    """The one output there is must be wanted in binary, since a frame is no text."""
    if outputs is None:
        wanted = parameters.get("binary_data_output")
    else:
        one = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else None
        if not isinstance(one, dict) or one.get("name") != OUTPUT:
            raise MalformedFrame(f"the only output is {OUTPUT!r}")
        own = one.get("parameters", {})
        wanted = own.get("binary_data") if isinstance(own, dict) else None
    if wanted is not True:
        raise MalformedFrame(f"ask for {OUTPUT!r} as binary data: parameters.binary_data_output = true")


def pack_response(frame: bytes, fields: dict[str, Any]) -> tuple[bytes, int]:
    """The body of an infer response and the length of its header."""
    return _with_tensor("outputs", OUTPUT, frame, fields)


def unpack_response(body: bytes, length: str | None) -> tuple[bytes, dict[str, Any]]:
    """The frame of an infer response and the other fields of its header; MalformedFrame for anything else."""
    header, binary = _split(body, length)
    return _tensor(header, "outputs", OUTPUT, binary), header


def _with_tensor(side: str, name: str, frame: bytes, fields: dict[str, Any]) -> tuple[bytes, int]:
    binary = struct.pack("<I", len(frame)) + frame
    tensor = {"name": name, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
    header = json.dumps(fields | {side: [tensor]}, separators=(",", ":")).encode()
    return header + binary, len(header)


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], memoryview]:
    if length is None or not (length.isascii() and length.isdigit() and len(length) < 10):
        raise MalformedFrame(f"the header {LENGTH_HEADER} must say how long the JSON before the tensor is")
    size = int(length)
    if not 0 < size <= min(len(body), HEADER_JSON_BYTES):
        raise MalformedFrame(f"a JSON header of {size} bytes in a body of {len(body)}, at most {HEADER_JSON_BYTES}")
    header = json_object(body[:size])
    return header, memoryview(body)[size:]  # megabytes: copied once, in _tensor


def json_object(text: bytes | str) -> dict[str, Any]:
    """The object of a JSON text; MalformedFrame for anything else."""
    try:
        return read_object(text)
    except ValueError as error:
        raise MalformedFrame("a JSON text that cannot be read, is no object, or gives one name twice") from error


def _tensor(header: dict[str, Any], side: str, name: str, binary: memoryview) -> bytes:
    tensors = header.get(side)
    one = tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else None
    if not isinstance(one, dict) or set(one) != _TENSOR_FIELDS:
        raise MalformedFrame(f"{side}: one binary tensor {name!r} with {sorted(_TENSOR_FIELDS)}, and no more")
    # As text, since True and 1.0 are equal to 1 here and not in other languages.
    if json.dumps([one["name"], one["datatype"], one["shape"]]) != json.dumps([name, "BYTES", [1]]):
        raise MalformedFrame(f"{side}: the tensor is {name!r}, of datatype BYTES and shape [1]")
    if json.dumps(one["parameters"]) != json.dumps({"binary_data_size": len(binary)}) or len(binary) < 4:
        raise MalformedFrame(f"{side}: binary_data_size is not the {len(binary)} bytes that follow")
    if struct.unpack_from("<I", binary)[0] != len(binary) - 4:
        raise MalformedFrame(f"{side}: the length of the BYTES element is not that of the bytes that follow")
    return bytes(binary[4:])
