"""Regenerates the vectors, in the manner of Wycheproof: `PYTHONPATH=src:tests python -m vectors` at the root.

Everything follows from labels and fixed keys but the fit of the small tree, so a second run changes nothing. The
private keys are public: test data only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vectors import bundles, ckks, envelopes, paillier
from vectors.forge import Case

HERE = Path(__file__).parent
NOTES = {
    "Control": "valid, so that a decoder that refuses everything fails",
    "Array": "an array that is not one of the model's: type, order, shape, size, or a number that is not finite",
    "Binding": "an id, session or sequence number that is none",
    "Bound": "a bound on |value| beyond the range of a double",
    "Ciphertext": "a number that encryption never makes: out of range, or it shares a factor with n",
    "Count": "more messages than there may be",
    "Digest": "the SHA-256 is not that of header and body",
    "Flags": "flags that are unknown, or do not belong to this content",
    "Groups": "a blinded tensor whose ciphertexts do not make up its groups",
    "Header": "a field that has no meaning here and is not zero",
    "Json": "text that is not JSON, or not the canonical form where there is one",
    "Kind": "a kind of message that is unknown, or not the one expected",
    "Length": "bytes missing, left over, or a length that says another thing",
    "Level": "a level that the parameters do not have, or that does not fit the bytes",
    "Magic": "not a message of hepipe",
    "Manifest": "a field of the manifest that is missing, unknown, or of another type or range",
    "Model": "parts of a model that do not fit together",
    "Modulus": "a modulus under which encryption is broken or decryption ambiguous",
    "Output": "an output that there is not, or not in binary",
    "Parameters": "parameters that are insecure, impossible, or of another type",
    "Pickle": "a pickle, which must never be loaded",
    "Proof": "a proof that is missing, another key's, replayed, cut or altered",
    "Residue": "a residue that is not below its prime",
    "Scale": "a scale that is no number, negative, or larger than the modulus",
    "Scheme": "a scheme that is unknown, or not that of the content",
    "Shape": "a shape of zero, or one that the bytes do not make up",
    "Tensor": "not exactly the one tensor that a request has",
    "Transparent": "a ciphertext that hides nothing: its second polynomial vanishes modulo a prime",
    "Version": "a version that is not 1",
    "WrongKey": "under another key than expected",
    "Zip": "a zip that is damaged, packed otherwise, too large, or holds other members",
}
WARNING = "INSECURE: the keys are small and their factors published; test data only"
_PAILLIER = {"n": f"{paillier.N:x}", "p": f"{paillier.P:x}", "keyId": paillier.KEY, "modulusBits": paillier.BITS}


def _ckks_key() -> dict[str, Any]:
    parameters = ckks.PARAMETERS
    return {"primes": list(parameters.coeff_modulus), "degree": parameters.poly_modulus_degree, "keyId": ckks.key()}


FILES: dict[str, tuple[str, Callable[[], dict[str, Any]], Callable[[], list[Case]]]] = {
    "envelope": ("frames, at most two", dict, envelopes.envelope),
    "paillier_tensor": ("a TENSOR frame under Paillier, one lane", lambda: _PAILLIER, paillier.tensors),
    "paillier_key": ("a registration under Paillier: keys and proof", dict, paillier.keys),
    "ckks_tensor": ("a TENSOR frame under CKKS", _ckks_key, ckks.tensors),
    "ckks_key": ("a registration under CKKS", dict, ckks.keys),
    "bundle": ("a model file", dict, bundles.bundles),
    "inference": ("the body of a request of the Open Inference Protocol", dict, envelopes.requests),
    "letter": ("a letter of a mailbox", dict, envelopes.letters),
}
"""Per file what is decoded, under which key, and its vectors."""


def written(name: str) -> str:
    """The content of one file."""
    what, key, made = FILES[name]
    cases = made()
    text = "base64" if name == "bundle" else "hex"
    tests = [case.fields(number, text) for number, case in enumerate(cases, 1)]
    used = {case.flag for case in cases}
    whole = {
        "algorithm": f"hepipe: {what}",
        "generator": "tests/vectors/__main__.py",
        "warning": WARNING,
        "numberOfTests": len(tests),
        "notes": {flag: note for flag, note in NOTES.items() if flag in used},
        "testGroups": [{"type": "HepipeDecoder", "decoder": name, "key": key(), "tests": tests}],
    }
    return json.dumps(whole, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    for name in FILES:
        (HERE / f"{name}.json").write_text(written(name))
