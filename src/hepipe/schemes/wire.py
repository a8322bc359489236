"""Ciphertexts and public keys as bytes, and back: every byte is checked here before gmpy2 or SEAL sees it.

A tensor's body is two bytes a feature, ceil(log2(bound)), then the ciphertexts in order of blocks and features, each
of a size fixed by the parameters; before all that, of a blinded tensor, the number of its groups in two bytes. Keys
carry their parameters as canonical JSON. No pickle, no exponents, no floats but the scale.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

import gmpy2
import numpy as np

from hepipe.errors import InsecureParameters, KeyMismatch, MalformedFrame, Unsupported
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor, FloatArray, PublicBundle
from hepipe.schemes.ckks_ciphertexts import Stream, expand
from hepipe.schemes.ckks_keys import CkksEvaluationKeys, CkksPublicKey
from hepipe.schemes.clear import ClearKey
from hepipe.schemes.frames import BLINDED, HEADER_BYTES, MAX_SAMPLES, SEEDED, Frame, Kind, body_bytes, parse
from hepipe.schemes.paillier import check_ciphertexts
from hepipe.schemes.paillier_keys import check_public
from hepipe.schemes.parameters import CkksParameters, ClearParameters, PaillierParameters

_PARAMETERS: dict[str, Any] = {"clear": ClearParameters, "paillier": PaillierParameters, "ckks": CkksParameters}
MAX_PARAMETER_BYTES = 4096
_JSON_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,), "tuple[int, ...]": (list,)}


def pack_tensor(x: CipherTensor, bundle: PublicBundle) -> bytes:
    """One TENSOR frame. What it shows besides ciphertexts: shape, level, scale and the bound to a power of two."""
    if x.key_id != bundle.key_id:
        raise KeyMismatch(f"a tensor of key {x.key_id[:8]} cannot travel under key {bundle.key_id[:8]}")
    bounds = struct.pack(f">{x.shape[1]}h", *_bound_bits(x.bound))
    body, flags = pack_ciphertexts(x, bundle)
    groups = struct.pack(">H", x.blinded) if x.blinded else b""
    flags |= BLINDED if groups else 0
    name, body = bundle.parameters.name, groups + bounds + body
    return Frame(Kind.TENSOR, name, x.key_id, *x.shape, x.level, x.log_scale, body, flags).to_bytes()


def unpack_tensor(data: bytes, bundle: PublicBundle) -> CipherTensor:
    """The tensor of a TENSOR frame under this key; MalformedFrame or KeyMismatch on anything else."""
    frame = parse(data, Kind.TENSOR)
    blinded = _groups(frame, bundle) if frame.flags == BLINDED else 0
    body = frame.body[2:] if blinded else frame.body
    head = 2 * frame.features
    if len(body) < head:
        raise MalformedFrame(f"a body of {len(body)} bytes cannot hold {frame.features} bounds")
    bits = struct.unpack_from(f">{frame.features}h", body)
    if any(abs(b) > 1023 for b in bits):
        raise MalformedFrame("a bound beyond the range of a double")
    ciphertexts = unpack_ciphertexts(frame, body[head:], bundle)
    bound = np.array([2.0**b for b in bits])
    shape = (frame.samples, frame.features)
    return CipherTensor(ciphertexts, shape, frame.level, frame.log_scale, bound, frame.key_id, blinded)


def _groups(frame: Frame, bundle: PublicBundle) -> int:
    """The groups of a blinded tensor: one of single entries, or several of as many pairs each."""
    if frame.scheme != "paillier" or bundle.parameters.name != "paillier" or bundle.parameters.lanes != 1:
        raise MalformedFrame("only Paillier with one lane blinds")
    if len(frame.body) < 2:
        raise MalformedFrame("a blinded tensor without its number of groups")
    (groups,) = struct.unpack_from(">H", frame.body)
    if groups < 1 or (groups > 1 and frame.features % (2 * groups)):
        raise MalformedFrame(f"{frame.features} ciphertexts a row do not make {groups} groups of pairs")
    return int(groups)


def pack_ciphertexts(x: CipherTensor, bundle: PublicBundle) -> tuple[bytes, int]:
    """The ciphertexts of a tensor and the flags they need: SEEDED if all still have the seed of c1."""
    parameters = bundle.parameters
    if parameters.name == "clear":
        if parameters.exact:
            raise Unsupported("the integer reference does not travel: its values are integers of any size")
        return np.asarray(x.data, dtype=">f8").tobytes(), 0
    items = [item for block in x.data for item in block]
    if parameters.name == "paillier":
        width = parameters.ciphertext_bytes(0)
        return b"".join(int(item).to_bytes(width, "big") for item in items), 0
    parts = [_polynomials(item, parameters) for item in items]
    seeded = all(part.seed is not None for part in parts)
    primes = parameters.primes_at(x.level)
    return b"".join(seal.pack_residues(p.residues, primes) + (p.seed or b"") for p in parts), SEEDED * seeded


def unpack_ciphertexts(frame: Frame, body: bytes, bundle: PublicBundle) -> Any:
    """The ciphertexts of a frame: counts, sizes and ranges checked one by one, nothing left over."""
    parameters, shape = bundle.parameters, (frame.samples, frame.features)
    if frame.scheme != parameters.name or frame.key_id != bundle.key_id:
        raise KeyMismatch(f"a {frame.scheme} frame of key {frame.key_id[:8]}, expected key {bundle.key_id[:8]}")
    if not (1 <= frame.samples <= MAX_SAMPLES and frame.features >= 1 and frame.level <= parameters.depth):
        raise MalformedFrame(f"shape {shape} at level {frame.level} is not one of these parameters")
    seeded = frame.flags == SEEDED
    if seeded and (parameters.name != "ckks" or frame.level != parameters.depth):
        raise MalformedFrame("only fresh CKKS ciphertexts are seeded")
    if len(body) != body_bytes(parameters, shape, frame.level, seeded):
        raise MalformedFrame(
            f"{len(body)} bytes of ciphertexts, expected {body_bytes(parameters, shape, frame.level, seeded)}"
        )
    if parameters.name == "clear":
        return _clear_values(body, shape)
    if parameters.name == "ckks" and not frame.log_scale < parameters.capacity_bits(frame.level):
        raise MalformedFrame(f"a scale of {frame.log_scale:.1f} bits does not fit the modulus at level {frame.level}")
    size = parameters.ciphertext_bytes(frame.level, seeded)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    items = _paillier_items(pieces, bundle) if parameters.name == "paillier" else _ckks_items(pieces, frame, bundle)
    return [items[i : i + frame.features] for i in range(0, len(items), frame.features)]


def _clear_values(body: bytes, shape: tuple[int, int]) -> FloatArray:
    values = np.frombuffer(body, dtype=">f8").astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        raise MalformedFrame("a value that is not finite")
    return values


def _paillier_items(pieces: list[bytes], bundle: PublicBundle) -> list[Any]:
    items = [gmpy2.mpz.from_bytes(piece, "big") for piece in pieces]
    check_ciphertexts(bundle.public, items)
    return items


def _ckks_items(pieces: list[bytes], frame: Frame, bundle: PublicBundle) -> list[Any]:
    parameters = bundle.parameters
    primes, degree = parameters.primes_at(frame.level), parameters.poly_modulus_degree
    parms_id = seal.context(parameters).parms_id(frame.level)
    items = []
    for piece in pieces:
        seed = piece[-seal.SEED_BYTES :] if frame.flags == SEEDED else None
        residues = seal.unpack_residues(piece[: -seal.SEED_BYTES] if seed else piece, 1 if seed else 2, primes, degree)
        if not residues[-1].any(axis=-1).all():
            raise MalformedFrame("a ciphertext that hides nothing: its last polynomial is zero modulo a prime")
        items.append(Stream(seal.put_together(seal.Polynomials(residues, seed), parms_id, 2.0**frame.log_scale)))
    return items


def _polynomials(item: Any, parameters: CkksParameters) -> seal.Polynomials:
    body = item.body if isinstance(item, Stream) else seal.save(expand(item, seal.context(parameters)))
    return seal.take_apart(body, parameters.poly_modulus_degree)


def pack_keys(bundle: PublicBundle) -> bytes:
    """One PUBLIC_KEYS frame: parameters, public key, evaluation keys."""
    parameters = bundle.parameters
    text = _canonical(dataclasses.asdict(parameters))
    if parameters.name == "clear":
        keys = b""
    elif parameters.name == "paillier":
        keys = int(bundle.public.n).to_bytes(parameters.modulus_bits // 8, "big")
    else:
        parts, primes = [bundle.public.parts, *bundle.evaluation.parts], parameters.coeff_modulus
        keys = b"".join(seal.pack_residues(p.residues, primes) + (p.seed or b"") for p in parts)
    body = struct.pack(">I", len(text)) + text + keys
    return Frame(Kind.PUBLIC_KEYS, parameters.name, bundle.key_id, 0, 0, 0, 0.0, body).to_bytes()


def key_frame_bytes(parameters: Any) -> int:
    """The exact size of a PUBLIC_KEYS frame under these parameters."""
    head = HEADER_BYTES + 4 + len(_canonical(dataclasses.asdict(parameters)))
    if parameters.name == "clear":
        return head
    if parameters.name == "paillier":
        return head + int(parameters.modulus_bits) // 8
    return head + _seeded_bytes(parameters) * (1 + _switching_keys(parameters) * (len(parameters.coeff_modulus) - 1))


def _seeded_bytes(parameters: CkksParameters) -> int:
    """One seeded encryption at the key level: what every CKKS key is made of."""
    widths = sum((prime.bit_length() + 7) // 8 for prime in parameters.coeff_modulus)
    return parameters.poly_modulus_degree * widths + seal.SEED_BYTES


def _switching_keys(parameters: CkksParameters) -> int:
    """One for relinearization, one a rotation; none for complex slots."""
    return 0 if parameters.complex_slots else 1 + len(parameters.rotations)


def unpack_keys(data: bytes, *, allow_insecure: bool = False) -> PublicBundle:
    """The keys of a PUBLIC_KEYS frame, every check of protocols.md 3.5 that needs no proof made.

    InsecureParameters for parameters of the tests, MalformedFrame for anything that is not exactly such a frame.
    """
    frame = parse(data, Kind.PUBLIC_KEYS)
    if (frame.samples, frame.features, frame.level, frame.log_scale, frame.flags) != (0, 0, 0, 0.0, 0):
        raise MalformedFrame("a key frame with the shape, level, scale or flags of a tensor")
    parameters, keys = _parameters(frame)
    public: Any
    evaluation: Any
    if parameters.insecure and not allow_insecure:
        raise InsecureParameters("these are parameters for tests; a server takes them only with allow_insecure=True")
    if frame.scheme == "clear":
        if keys:
            raise MalformedFrame("the clear scheme has no key material")
        public, evaluation = ClearKey(frame.key_id), None
    elif frame.scheme == "paillier":
        if len(keys) != parameters.modulus_bits // 8:
            raise MalformedFrame(f"a modulus of {len(keys)} bytes, expected {parameters.modulus_bits // 8}")
        public = evaluation = check_public(int.from_bytes(keys, "big"), parameters.modulus_bits)
    else:
        public, evaluation = _ckks_keys(keys, parameters)
    bundle = PublicBundle(parameters, public, evaluation)
    if bundle.key_id != frame.key_id:
        raise KeyMismatch(f"the frame names key {frame.key_id[:8]} but holds key {bundle.key_id[:8]}")
    return bundle


def _parameters(frame: Frame) -> tuple[Any, bytes]:
    size = struct.unpack_from(">I", frame.body)[0] if len(frame.body) >= 4 else -1
    if not 0 < size <= min(MAX_PARAMETER_BYTES, len(frame.body) - 4):
        raise MalformedFrame("no parameters where a key frame has them")
    text = frame.body[4 : 4 + size]
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or _canonical(fields) != text:
            raise MalformedFrame("parameters that are not canonical JSON")
        parameters = parameters_from(frame.scheme, fields)
        if _canonical(dataclasses.asdict(parameters)) != text:
            raise MalformedFrame("rotations that are not sorted and modulo the slots")
        return parameters, frame.body[4 + size :]
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedFrame(f"parameters that cannot be read: {error}") from error


def parameters_from(scheme: str, fields: dict[str, Any]) -> Any:
    """The parameters of a scheme from their fields, as JSON has them; MalformedFrame unless they are exactly these."""
    kind = _PARAMETERS[scheme]
    types = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    if set(fields) != set(types):
        raise MalformedFrame(f"parameters {sorted(fields)} where {sorted(types)} belong")
    for name, wanted in types.items():
        if type(fields[name]) not in _JSON_TYPES[wanted]:
            raise MalformedFrame(f"parameter {name}={fields[name]!r} is not of type {wanted}")
        if isinstance(fields[name], list):
            fields[name] = tuple(fields[name])
    return kind(**fields)


def parameter_fields(parameters: Any) -> dict[str, Any]:
    """The fields of parameters as JSON has them: what ``parameters_from`` takes."""
    fields: dict[str, Any] = json.loads(_canonical(dataclasses.asdict(parameters)))
    return fields


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _ckks_keys(keys: bytes, parameters: CkksParameters) -> tuple[CkksPublicKey, CkksEvaluationKeys]:
    primes, degree = parameters.coeff_modulus, parameters.poly_modulus_degree
    size, digits, count = _seeded_bytes(parameters), len(primes) - 1, _switching_keys(parameters)
    if len(keys) != size * (1 + count * digits):
        raise MalformedFrame(f"{len(keys)} bytes of CKKS keys, expected {size * (1 + count * digits)}")
    pieces = [keys[i : i + size] for i in range(0, len(keys), size)]
    public, *parts = [
        seal.Polynomials(seal.unpack_residues(piece[: -seal.SEED_BYTES], 1, primes, degree), piece[-seal.SEED_BYTES :])
        for piece in pieces
    ]
    switching = [parts[i : i + digits] for i in range(0, len(parts), digits or 1)]
    relinearization, galois = (switching[0], switching[1:]) if switching else ([], [])
    return CkksPublicKey(parameters, public), CkksEvaluationKeys(parameters, relinearization, galois)


def _bound_bits(bound: FloatArray) -> list[int]:
    return [math.ceil(math.log2(b)) if b > 0 else -1023 for b in bound.tolist()]
