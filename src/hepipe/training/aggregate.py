"""Linear and ridge regression over the rows of several owners, from encrypted sums (Hall et al., JOS 27, 2011).

    DataOwner  --Enc(own Gram matrix)-->  Aggregator  --Enc(sum of all)-->  KeyHolder, who solves

| party       | learns                                                                         |
| ----------- | ------------------------------------------------------------------------------ |
| data owner  | nothing                                                                        |
| aggregator  | how many rows each owner has                                                   |
| key holder  | the pooled sums: number of rows, means and covariances of all columns together |

The aggregator and the key holder must not work together, or they read each owner's sums; and k owners together with
the key holder hold the sum over the others. So there are at least three owners, all of them, and ten rows a column, in
the one sum that is ever released. Who a message is from is for the channel (TLS) to establish.

rounds  0: one message a party. price at 3072 bits, 15 columns: 153 sums in 5 or 6 ciphertexts. An owner encrypts
them, 28 ms each, after adding up its rows, 1 s for 50,000; the aggregator multiplies and re-randomises them, 0.2 s; the
key holder decrypts them and solves, 0.1 s.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pandas as pd

from hepipe.errors import AgreementBroken, KeyMismatch, MalformedFrame
from hepipe.schemes.base import CipherTensor, KeySet, PublicBundle, Samples
from hepipe.schemes.frames import Frame, Kind, parse
from hepipe.schemes.paillier import PaillierScheme
from hepipe.schemes.wire import pack_keys, pack_tensor, unpack_keys, unpack_tensor
from hepipe.training.agreement import Agreement, Solution
from hepipe.training.exact import solve

_HEAD = struct.Struct(">32sHQ")
"""The agreement's digest; the owner's place, or how many owners a sum is of; rows."""


class DataOwner:
    """Holds its rows only while it adds them up, and the key holder's public key. Learns nothing.

    KeyMismatch for a key frame with other parameters than the agreement's.
    """

    learns = "nothing"

    def __init__(self, name: str, agreement: Agreement, public: bytes) -> None:
        if name not in agreement.owners:
            raise AgreementBroken(f"{name!r} is none of the agreed owners {list(agreement.owners)}")
        self.name, self.agreement = name, agreement
        self._bundle = read_keys(public, agreement)
        self._encryptor = PaillierScheme(agreement.parameters).encryptor(self._bundle.public)

    def contribute(self, X: Samples, y: npt.ArrayLike | pd.Series) -> bytes:
        """One CONTRIBUTION frame of X (samples, features) and y (samples,). Shows the aggregator how many rows.

        OutOfRange for a value outside its published range, which names row and column; AgreementBroken for more rows
        than agreed.
        """
        rows = int(np.size(y))
        _check_rows(rows, self.agreement, self.name)
        sums = self.agreement.contribution(X, y)
        x = self._encryptor.encrypt_integers(sums, self.agreement.bound, log_scale=0, level=0)
        place = self.agreement.owners.index(self.name)
        return _wrap(Kind.CONTRIBUTION, self.agreement, place, rows, x, self._bundle)


class Aggregator:
    """Adds what it cannot read. Learns how many rows each owner has; refuses sums that would tell too much."""

    learns = "how many rows each owner has"

    def __init__(self, agreement: Agreement, public: bytes) -> None:
        self.agreement = agreement
        self._bundle = read_keys(public, agreement)
        self._evaluator = PaillierScheme(agreement.parameters).evaluator(
            KeySet(None, self._bundle.public, self._bundle.evaluation)
        )
        self._received: dict[int, tuple[int, CipherTensor]] = {}
        self._released = False

    def receive(self, contribution: bytes) -> None:
        """Take an owner's CONTRIBUTION frame.

        AgreementBroken for another agreement, a second contribution of one owner, more rows than agreed; MalformedFrame
        and KeyMismatch for what is no contribution under this key.
        """
        place, rows, x = _unwrap(contribution, Kind.CONTRIBUTION, self.agreement, self._bundle)
        if place >= len(self.agreement.owners):
            raise MalformedFrame(f"owner {place} of {len(self.agreement.owners)}")
        name = self.agreement.owners[place]
        if place in self._received:
            raise AgreementBroken(f"{name!r} has contributed already: its rows would count twice")
        _check_rows(rows, self.agreement, name)
        if x.bound != self.agreement.bound:
            raise MalformedFrame(f"sums bounded by {x.bound[0]:.3g}, agreed were {self.agreement.bound:.3g}")
        self._received[place] = rows, x

    def release(self) -> bytes:
        """One POOLED_SUM frame for the key holder, re-randomised; once, or two sums could be compared.

        AgreementBroken while an owner is missing, for fewer rows than ten a column, or for a second release.
        """
        if self.agreement.masked:
            raise AgreementBroken("under this agreement nobody sees the sums: use a MaskingAggregator")
        total, rows = self._total()
        x = self._evaluator.rerandomize(total)
        return _wrap(Kind.POOLED_SUM, self.agreement, len(self._received), rows, x, self._bundle)

    def _total(self) -> tuple[CipherTensor, int]:
        """The sum of all contributions and its number of rows, once."""
        missing = [name for place, name in enumerate(self.agreement.owners) if place not in self._received]
        if missing:
            raise AgreementBroken(f"{missing} have not contributed: only the sum over all agreed owners is released")
        if self._released:
            raise AgreementBroken("the sum was released already: a second one could be compared with the first")
        rows = sum(count for count, _ in self._received.values())
        check_total(rows, self.agreement)
        self._released = True
        first, *others = (x for _, x in self._received.values())
        for x in others:
            first = self._evaluator.add(first, x)
        return first, rows


class KeyHolder:
    """Makes the keys and decrypts one pooled sum. Learns that sum and the model, of no owner its part."""

    learns = "the pooled sums: rows, means and covariances of all owners together; the model"

    def __init__(self, agreement: Agreement) -> None:
        scheme = PaillierScheme(agreement.parameters)
        keys = scheme.keygen()
        self.agreement = agreement
        self._bundle = PublicBundle(agreement.parameters, keys.public, keys.evaluation)
        self._decryptor = scheme.decryptor(keys.secret)
        self._answered = False

    def public(self) -> bytes:
        """The public key, as a frame for owners and aggregator."""
        return pack_keys(self._bundle)

    def solve(self, pooled: bytes) -> Solution:
        """The model from a POOLED_SUM frame, solved exactly.

        AgreementBroken for a second sum, too few rows or owners, or sums whose count of rows is not the stated one;
        IllPosed where the columns depend on each other and alpha is 0.
        """
        if self.agreement.masked:
            raise AgreementBroken("under this agreement the key holder learns no sum: use a MaskedKeyHolder")
        owners, rows, x = _unwrap(pooled, Kind.POOLED_SUM, self.agreement, self._bundle)
        if owners != len(self.agreement.owners):
            raise AgreementBroken(f"a sum of {owners} owners, agreed were {len(self.agreement.owners)}")
        check_total(rows, self.agreement)
        self._once()
        sums = [int(value) for value in self._decryptor.decrypt_integers(x)[:, 0]]
        if sums[0] != rows:
            raise AgreementBroken(f"the sum counts {sums[0]} rows, stated are {rows}: an owner stated a wrong number")
        # A column of which less than 2**(fraction_bits / 2) units of rounding is its own would get weights of noise.
        numerators, denominator = solve(*self.agreement.system(sums), least=rows << self.agreement.fraction_bits)
        return self.agreement.unscaled([(value, denominator) for value in numerators], rows)

    def _once(self) -> None:
        if self._answered:
            raise AgreementBroken("this key has decrypted its sum: a second one could be compared with the first")
        self._answered = True


def read_keys(public: bytes, agreement: Agreement) -> PublicBundle:
    """The key holder's public key from its frame; KeyMismatch if it is for other parameters than agreed."""
    bundle = unpack_keys(public, allow_insecure=agreement.insecure)
    if bundle.parameters != agreement.parameters:
        raise KeyMismatch(f"a key for {bundle.parameters}, agreed were {agreement.parameters}")
    return bundle


def check_total(rows: int, agreement: Agreement) -> None:
    """AgreementBroken for fewer pooled rows than the agreement's least."""
    if rows < agreement.min_rows:
        raise AgreementBroken(
            f"{rows} rows in all, at least {agreement.min_rows} for {agreement.features} columns: the sums would tell "
            "too much of single rows; find more, or drop columns"
        )


def check_digest(digest: bytes, agreement: Agreement) -> None:
    """AgreementBroken unless a message was made under this very agreement."""
    if digest != agreement.digest:
        raise AgreementBroken("made under another agreement: schema, ranges, owners and numbers must be the same")


def _check_rows(rows: int, agreement: Agreement, name: str) -> None:
    if not 1 <= rows <= agreement.rows:
        raise AgreementBroken(f"{name!r} has {rows} rows, agreed were 1 to {agreement.rows}: agree on more")


def _wrap(kind: Kind, agreement: Agreement, number: int, rows: int, x: CipherTensor, bundle: PublicBundle) -> bytes:
    body = _HEAD.pack(agreement.digest, number, rows) + pack_tensor(x, bundle)
    return Frame(kind, "paillier", bundle.key_id, *x.shape, 0, 0.0, body).to_bytes()


def _unwrap(data: bytes, kind: Kind, agreement: Agreement, bundle: PublicBundle) -> tuple[int, int, CipherTensor]:
    """(number, rows, tensor) of a CONTRIBUTION or POOLED_SUM frame, every part checked."""
    frame = parse(data, kind)
    if len(frame.body) < _HEAD.size:
        raise MalformedFrame(f"a body of {len(frame.body)} bytes has no head of {_HEAD.size}")
    digest, number, rows = _HEAD.unpack_from(frame.body)
    check_digest(digest, agreement)
    x, shape = unpack_tensor(frame.body[_HEAD.size :], bundle), (len(agreement.entries[0]), 1)
    outer = (frame.scheme, frame.key_id, (frame.samples, frame.features), frame.level, frame.log_scale, frame.flags)
    if x.shape != shape or (x.level, x.log_scale) != (0, 0.0) or outer != ("paillier", x.key_id, shape, 0, 0.0, 0):
        raise MalformedFrame(f"sums of shape {x.shape} at log_scale {x.log_scale}, agreed were {shape} at 0")
    return number, rows, x
