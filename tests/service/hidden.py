"""Traces of what nobody between client and server may see: all that either party keeps of a prediction."""

from __future__ import annotations

from typing import Any

import gmpy2
import numpy as np

from golden.ckks_oracle import inverse_ntt
from hepipe.models.codec import encode
from hepipe.models.logistic import clear_scores
from hepipe.models.mlp import MlpModel
from hepipe.protocol.parties import Client
from hepipe.schemes.frames import Kind, kind_of, parse
from hepipe.schemes.seal import pack_residues
from hepipe.service.inference import LENGTH_HEADER, unpack_request, unpack_response
from service import traces
from service.exchanges import Exchange
from service.odd_models import ROWS

PASSPHRASE = "Quitte-Kompass-41-Zwirn"


class Arrays(list[Any]):
    """The arrays of a model or a profile."""

    def put(self, array: Any) -> int:
        self.append(array)
        return len(self)

    def get(self, reference: Any) -> Any:
        return self[reference - 1]


def weights_of(model: Any) -> list[Any]:
    """Every array of a bundle that is not published: weights, leaves, thresholds, which column a node tests."""
    everything, published = Arrays(), Arrays()
    encode(model, everything)
    encode(model.profile, published)
    return [array for array in everything if not any(array is each for each in published)]


def secrets_of(model: Any, client: Client, scores: Any, passed: list[Exchange]) -> dict[str, set[bytes]]:
    """Traces of all that must not be seen, by what it is; ``passed`` is where the ciphertexts are found."""
    prepared = model.prepare(ROWS)
    found = {
        "inputs": traces.of_numbers(ROWS.to_numpy()),
        "scores": traces.of_numbers(scores) | traces.of_numbers(clear_scores(model, ROWS)),
        "weights": {each for array in weights_of(model) for each in numbers(array)},
        "passphrase": traces.of_text(PASSPHRASE),
    }
    if len(np.unique(prepared)) > 2:  # not the bits of a tree
        found["prepared inputs"] = traces.of_numbers(prepared)
    if isinstance(model, MlpModel):
        hidden = model.layers[0].pre_activations(prepared)
        found["hidden layer"] = traces.of_numbers(hidden) | traces.of_numbers(hidden**2)
    if client.public().parameters.name == "paillier":
        secret = client._keys.secret
        carmichael = gmpy2.lcm(secret.p - 1, secret.q - 1) % secret.p  # its upper half is that of n / 2, and public
        parts = [secret.p, secret.q, *secret.b, carmichael, secret.generator_p, secret.generator_q]
        found["secret key"] = {each for part in parts for each in traces.of_key_number(int(part))}
        found["plaintexts"] = plaintexts(client, passed)
    else:
        found["secret key"] = ring_key(client)
    return found


def numbers(array: Any) -> set[bytes]:
    return traces.of_numbers(array) if array.dtype.kind == "f" else traces.of_list(array)


def ring_key(client: Client) -> set[bytes]:
    """A secret polynomial: transformed, as SEAL and as hepipe write residues, and its coefficients -1, 0 and 1."""
    parameters, material = client.public().parameters, client._keys.secret._material()
    primes, degree = parameters.coeff_modulus, parameters.poly_modulus_degree
    words = np.frombuffer(material[-8 * len(primes) * degree :], "<u8").reshape(len(primes), degree)
    lifted = inverse_ntt(words[0].astype(object), primes[0])
    assert set(lifted.tolist()) == {0, 1, primes[0] - 1}
    small = np.where(lifted > 1, -1, lifted).astype(np.int64)
    found = traces.of_bytes(words.tobytes()) | traces.of_bytes(words.astype(">u8").tobytes())
    found |= traces.of_bytes(pack_residues(words[None], primes))
    for prime in primes:
        residues = (small % prime).astype(np.uint64)
        found |= traces.of_bytes(pack_residues(residues[None, None], (prime,)), 64)
    return found | {
        each for kind in ("i1", "<i4", "<i8") for each in traces.of_bytes(small.astype(kind).tobytes(), 256)
    }


def plaintexts(client: Client, passed: list[Exchange]) -> set[bytes]:
    """What the ciphertexts of requests and results decrypt to: inputs in their lanes, scores, a blinded leaf."""
    key, parameters = client._keys.secret.to_phe(), client.public().parameters
    width, found = parameters.ciphertext_bytes(0), set()
    for frame in (each for one in passed for each in frames(one)):
        if kind_of(frame) != Kind.TENSOR:
            continue
        head = parse(frame, Kind.TENSOR)
        body = head.body[len(head.body) % width :]
        for start in range(0, len(body), width):
            value = key.raw_decrypt(int.from_bytes(body[start : start + width], "big"))
            found |= traces.of_whole_number(value) | traces.of_whole_number(value - int(client._keys.public.n))
    return found


def frames(one: Exchange) -> list[bytes]:
    """The frames of a prediction, there and back."""
    if one.asked:
        return [each for each in one.asked + one.answered if isinstance(each, bytes)]
    if one.method == "POST" and one.status == 200:
        return [
            unpack_request(one.body, one.headers[LENGTH_HEADER.lower()])[0],
            unpack_response(one.answer, one.answer_headers[LENGTH_HEADER.lower()])[0],
        ]
    return []
