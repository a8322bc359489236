"""What a curious client has: its keys, every byte it gets, and every plaintext in them, shown or not."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import phe
import tenseal.sealapi as sealapi

from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.link import Message, Transcript
from hepipe.protocol.parties import Client, Server
from hepipe.schemes import seal
from hepipe.schemes.base import CipherTensor
from hepipe.schemes.ckks import expand
from hepipe.schemes.frames import Kind, parse
from hepipe.study.plan import plan


@cache
def phe_keys() -> tuple[phe.PaillierPublicKey, phe.PaillierPrivateKey]:
    """Keys of the old systems, too short for anything but a test."""
    keys: tuple[phe.PaillierPublicKey, phe.PaillierPrivateKey] = phe.generate_paillier_keypair(n_length=1024)
    return keys


def profile(features: int, bound: float = 1.0) -> Profile:
    """With a bound of 1 what is encrypted is the raw input."""
    return Profile.of("regression", Schema.unknown(features, bound=bound), 1)


def parties(model: Any, scheme: str, samples: int = 1, **wishes: Any) -> tuple[Client, Server, Any]:
    """Client, server and plan at the insecure sizes of tests."""
    made = plan(model, scheme, samples=samples, security_bits=0, **wishes)
    client = Client(made)
    return client, Server(model, client.public_bytes(), made.policy, allow_insecure=True), made


def answered(client: Client, server: Server, x: CipherTensor, link: Any = None) -> CipherTensor:
    """The result as it comes out of its frame."""
    return client.unpack(server.pack(server.evaluate(server.unpack(client.pack(x)), link)))


def plaintexts(client: Client, ciphertexts: Any) -> list[int]:
    """The whole signed plaintext of Paillier ciphertexts, by phe."""
    key = client._keys.secret.to_phe()
    values = [key.raw_decrypt(int(c)) for c in ciphertexts]
    return [v - key.public_key.n if 2 * v > key.public_key.n else v for v in values]


def slots(ciphertext: Any, context: Any, secret: Any) -> np.ndarray:
    """Every slot of a SEAL ciphertext, whatever the library that made it would show."""
    plain = sealapi.Plaintext()
    sealapi.Decryptor(context, secret).decrypt(ciphertext, plain)
    return np.array(sealapi.CKKSEncoder(context).decode_complex(plain))


def all_slots(client: Client, y: CipherTensor) -> list[np.ndarray]:
    """Every slot of every ciphertext of a CKKS tensor."""
    context = seal.context(client.public().parameters)
    secret = client._keys.secret._handle
    return [slots(expand(item, context), context.seal, secret) for row in y.data for item in row]


class Listening:
    """A link whose client half writes down what it decrypts before it answers."""

    def __init__(self, client: Client) -> None:
        self.transcript = Transcript()
        self.requests: list[bytes] = []
        self._client = client

    def request(self, kind: str, frame: bytes) -> bytes:
        self.requests.append(frame)
        reply = self._client.answer(frame)
        self.transcript.messages += [Message(kind, "server", len(frame)), Message(kind, "client", len(reply))]
        return reply

    def seen(self) -> np.ndarray:
        """The plaintexts of all masked factors, shape (requests * samples, factors)."""
        rows = []
        for request in self.requests:
            frame = parse(request, Kind.MASKED_FACTORS)
            size = (len(frame.body) - 4) // (frame.samples * frame.features)
            pieces = [frame.body[i : i + size] for i in range(4, len(frame.body), size)]
            values = plaintexts(self._client, [int.from_bytes(piece, "big") for piece in pieces])
            rows.append(np.array(values, dtype=object).reshape(frame.samples, frame.features))
        return np.concatenate(rows)


def solved(X: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The affine map that explains what was seen of inputs X: its weights, then its intercept."""
    rows = np.column_stack([X, np.ones(len(X))])
    return np.linalg.lstsq(rows, seen.astype(np.float64), rcond=None)[0]
