"""The two parties: the client, who owns the data and the only secret key, and the server, who owns the model."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hepipe.errors import InsecureParameters, KeyMismatch, MalformedFrame, Unsupported
from hepipe.protocol.comparison import answer_masked_numbers, answer_zero_tests
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import Link, LocalLink
from hepipe.protocol.refresh import Refresh
from hepipe.protocol.rounds import Ask, answer_masked_factors
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, KeySet, PublicBundle, Samples
from hepipe.schemes.frames import Kind, kind_of, split
from hepipe.schemes.keystore import load_keys, save_keys
from hepipe.schemes.paillier_proof import prove, verify
from hepipe.schemes.paillier_randomness import RandomnessPool
from hepipe.schemes.registry import evaluator_of, scheme_of
from hepipe.schemes.secret import SecretKey
from hepipe.schemes.wire import pack_keys, pack_tensor, unpack_keys, unpack_tensor

_ANSWERS: dict[int, Any] = {Kind.MASKED_NUMBERS: answer_masked_numbers, Kind.ZERO_TESTS: answer_zero_tests}


class Profile(Protocol):
    """What of a model is published: the maps before encryption and after decryption."""

    @property
    def input_bound(self) -> FloatArray:
        """|value| of every prepared feature."""
        ...

    def prepare(self, X: Samples) -> FloatArray:
        """Check and scale raw inputs: what is encrypted."""
        ...

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """What decrypted scores mean."""
        ...


class Plan(Protocol):
    """What a client needs of a plan."""

    @property
    def parameters(self) -> Any:
        """The scheme's parameters."""
        ...

    @property
    def profile(self) -> Profile:
        """The published half of the model."""
        ...

    @property
    def policy(self) -> str:
        """How nonlinearities are paid; with "client" this party agrees to see pre-activations."""
        ...


class Model(Protocol):
    """What a server needs of a model."""

    def forward(self, ev: Evaluator, x: CipherTensor) -> CipherTensor:
        """The circuit, the only part that knows weights."""
        ...


class Evaluates(Protocol):
    """What a client needs of a server: here, in another process, or elsewhere."""

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores."""
        ...


class Client:
    """Makes the keys and holds the only secret key; of the model it knows ``plan.profile`` only.

    Learns the scores. Its inputs stay hidden from the server: IND-CPA of Paillier (DCR) or CKKS (RLWE).
    """

    def __init__(self, plan: Plan, keys: KeySet | None = None) -> None:
        self.profile, self._policy = plan.profile, plan.policy
        self._scheme = scheme_of(plan.parameters)
        self._keys = keys = keys or self._scheme.keygen()
        self._bundle = PublicBundle(plan.parameters, keys.public, keys.evaluation)
        self._encryptor = self._scheme.encryptor(keys.secret)
        self._decryptor = self._scheme.decryptor(keys.secret)
        if self._scheme.name == "paillier":
            self._encryptor.prepare()  # type: ignore[attr-defined]

    @classmethod
    def load(cls, plan: Plan, path: str | os.PathLike[str], passphrase: str) -> Client:
        """A client with keys that ``save`` wrote; KeyMismatch if they were made for other parameters."""
        keys, parameters = load_keys(path, passphrase)
        if parameters != plan.parameters:
            raise KeyMismatch(f"the stored keys are for {parameters}, the plan needs {plan.parameters}: make new keys")
        return cls(plan, keys)

    def save(self, path: str | os.PathLike[str], passphrase: str) -> None:
        """Keep the keys for later, sealed with a passphrase; see keystore.save_keys."""
        save_keys(path, self._keys, self._bundle.parameters, passphrase)

    def public(self) -> PublicBundle:
        """What the server gets: parameters, public key, evaluation keys."""
        return self._bundle

    def encrypt(self, X: Samples) -> CipherTensor:
        """Check, prepare and encrypt raw inputs of shape (samples, features); OutOfRange names row and column."""
        return self._encryptor.encrypt(self.profile.prepare(X), self.profile.input_bound)

    def decrypt(self, y: CipherTensor) -> FloatArray:
        """The scores, float64 of shape (samples, outputs). Of CKKS, never publish them: SECURITY.md."""
        return self._decryptor.decrypt(y)

    def decrypt_integers(self, y: CipherTensor) -> npt.NDArray[Any]:
        """The exact integers score * 2**log_scale under Paillier, shape (samples, outputs)."""
        if self._scheme.name != "paillier":
            raise Unsupported(f"{self._scheme.name} has no exact integers: use decrypt")
        return self._decryptor.decrypt_integers(y)  # type: ignore[attr-defined,no-any-return]

    def head(self, scores: FloatArray) -> npt.NDArray[Any]:
        """What the scores mean: labels, salaries."""
        return self.profile.head(scores)

    def predict(self, server: Evaluates, X: Samples) -> npt.NDArray[Any]:
        """Encrypt, have evaluated, decrypt, read."""
        return self.head(self.decrypt(server.evaluate(self.encrypt(X), self.link())))

    def link(self) -> LocalLink:
        """A connection by which a server in this process asks for rounds."""
        return LocalLink(self.answer)

    def answer(self, request: bytes) -> bytes:
        """The client's half of a round. MalformedFrame on anything but a request of a round."""
        kind = kind_of(request)
        if kind == Kind.QUESTION:
            if self._policy != "client":
                raise Unsupported("the server asks for a value in the clear, but the plan's policy is not 'client'")
            return Ask.answer(request, self._bundle, self._encryptor, self._decryptor)
        if kind == Kind.MASKED_VALUES:
            return Refresh.answer(request, self._bundle, self._encryptor, self._decryptor)
        if self._scheme.name != "paillier":
            raise Unsupported(f"{self._scheme.name} multiplies by itself: nothing to answer")
        answer = _ANSWERS.get(kind, answer_masked_factors)
        return answer(request, self._bundle, self._encryptor, self._decryptor)  # type: ignore[no-any-return]

    def pack(self, x: CipherTensor) -> bytes:
        """A tensor as a frame for the server."""
        return pack_tensor(x, self._bundle)

    def unpack(self, frame: bytes) -> CipherTensor:
        """The server's result from its frame."""
        return unpack_tensor(frame, self._bundle)

    def public_bytes(self) -> bytes:
        """``public`` as a frame."""
        return pack_keys(self._bundle)

    def registration_bytes(self) -> bytes:
        """``public`` as a server on a network wants it: under Paillier the proof of the key follows its frame."""
        proof = prove(self._keys.secret) if self._scheme.name == "paillier" else b""
        return self.public_bytes() + proof

    def tag(self, content: bytes) -> str:
        """A MAC under the secret key: what this client gave away, it knows again. Without encryption, a mere digest."""
        secret = self._keys.secret
        material = secret._material() if isinstance(secret, SecretKey) else b""
        key = hashlib.sha256(b"hepipe client tag\0" + material).digest()
        return hmac.new(key, content, "sha256").hexdigest()

    def fill(self, count: int) -> None:
        """Have the randomness of ``count`` ciphertexts ready (Paillier); offline work."""
        if self._scheme.name == "paillier":
            self._encryptor.fill(count)  # type: ignore[attr-defined]


def registered(data: bytes, *, allow_insecure: bool = False) -> PublicBundle:
    """The keys of ``Client.registration_bytes``, every check of protocols.md 3.5 made, the Paillier proof included.

    InsecureParameters for a key that is not shown to be well made, MalformedFrame for anything but such bytes.
    """
    frames = split(data)
    bundle = unpack_keys(frames[0] if frames else b"", allow_insecure=allow_insecure)
    proofs = frames[1:]
    if bundle.parameters.name != "paillier":
        if proofs:
            raise MalformedFrame(f"{len(proofs)} frames after keys that need no proof")
    elif len(proofs) != 1:
        raise InsecureParameters("a Paillier key needs the proof of its modulus, once: send registration_bytes()")
    else:
        verify(bundle.public, proofs[0])
    return bundle


class Server:
    """Holds the model and a client's public keys; sees ciphertexts only. Learns nothing of the inputs or the scores.

    Takes the bundle of ``client.public()`` or its frame. Parameters of the tests are refused unless ``allow_insecure``.
    """

    def __init__(
        self, model: Model, public: PublicBundle | bytes, policy: str = "polynomial", *, allow_insecure: bool = False
    ) -> None:
        self.model, self._bundle = model, public_bundle(public, allow_insecure)
        self._evaluator = evaluator_of(self._bundle)
        self._policy = policy

    def evaluate(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The encrypted scores, rerandomized; ``link`` where the plan has rounds."""
        return self.rerandomize(self.forward(x, link))

    def forward(self, x: CipherTensor, link: Link | None = None) -> CipherTensor:
        """The circuit alone. What it returns must not leave the server before ``rerandomize``."""
        ev = Interactive(self._evaluator, link, self._bundle, self._policy) if link else self._evaluator
        return self.model.forward(ev, x)

    def rerandomize(self, y: CipherTensor) -> CipherTensor:
        """A result as it may leave: fresh randomness, lowest level, its bound rounded up to a power of two."""
        y = self._evaluator.rerandomize(y)
        # The computed bound is a function of the weights; a power of two of the largest says the least that is needed.
        return y.with_bound(2.0 ** np.ceil(np.log2(np.max(y.bound, initial=2.0**-64))))

    @property
    def pool(self) -> RandomnessPool | None:
        """Where the randomness of results comes from (Paillier); None where none can be made ahead."""
        return self._evaluator.pool if self._bundle.parameters.name == "paillier" else None

    def fill(self, count: int) -> None:
        """Have the randomness of ``count`` results, masks and tests ready (Paillier); offline work."""
        if self.pool is not None:
            self.pool.fill(count)

    def pack(self, y: CipherTensor) -> bytes:
        """A result as a frame for the client."""
        return pack_tensor(y, self._bundle)

    def unpack(self, frame: bytes) -> CipherTensor:
        """A client's tensor from its frame."""
        return unpack_tensor(frame, self._bundle)


def public_bundle(public: PublicBundle | bytes, allow_insecure: bool) -> PublicBundle:
    """What ``client.public()`` gives, or its frame; KeyMismatch for more, InsecureParameters for test keys."""
    bundle = unpack_keys(public, allow_insecure=allow_insecure) if isinstance(public, bytes) else public
    if not isinstance(bundle, PublicBundle):
        raise KeyMismatch("a server takes client.public(); keys that include a secret one never leave the client")
    if bundle.parameters.insecure and not allow_insecure:
        raise InsecureParameters("the client uses parameters made for tests: plan with secure ones")
    return bundle
