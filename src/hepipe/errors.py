"""Every error hepipe raises on purpose: each message says what, how much, and what to do about it."""

from __future__ import annotations


class HepipeError(Exception):
    """Root of all errors raised by hepipe itself."""


class BudgetExhausted(HepipeError):
    """A product was asked for that the remaining levels do not pay for."""


class KeyMismatch(HepipeError):
    """Operands, or a ciphertext and a key, that do not belong together."""


class Unsupported(HepipeError):
    """The scheme, or this setting of it, cannot do this operation."""


class InsecureParameters(HepipeError):
    """Parameters below the security asked for, or above the standard's bound."""


class OutOfRange(HepipeError):
    """A value, or the bound of a result, that does not fit where it has to go."""


class ShapeMismatch(HepipeError):
    """Arrays or ciphertext tensors whose shapes do not fit together."""


class ScaleMismatch(HepipeError):
    """Operands whose scales differ, so that their sum would be a wrong number."""


class MalformedFrame(HepipeError):
    """Bytes that are not a well-formed frame of the expected kind."""


class MalformedBundle(HepipeError):
    """A model file that is not a well-formed hepipe bundle, was altered, or holds what no bundle may hold."""


class DataError(HepipeError):
    """A data file that is missing, altered, or breaks its schema; names file, column and row."""


class UnsupportedModel(HepipeError):
    """An estimator or module that hepipe cannot evaluate on encrypted data."""


class RunFailed(HepipeError):
    """A notebook of a batch failed, or a batch was asked for something that does not exist."""


class PeerLost(HepipeError):
    """The process at the other end is gone, was too slow, or closed without a goodbye."""


class AgreementBroken(HepipeError):
    """A contribution or release that the parties' agreement rules out: it would tell too much, or count twice."""


class IllPosed(HepipeError):
    """A fit whose data do not determine its solution."""


class StoreFailed(HepipeError):
    """An object store that cannot be reached, refuses, or cannot do what a mailbox needs."""
