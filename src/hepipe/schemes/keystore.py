"""Secret keys at rest: encrypted with a passphrase, readable by their owner only.

scrypt (RFC 7914; N = 2**17, r = 8, p = 1: 128 MiB a guess) derives the key of AES-256-GCM, which seals the key material
and authenticates the header. File: magic 4 | version 1 | header length 4 | header, canonical JSON | salt 16 | nonce 12
| sealed. Nothing of the key is readable without the passphrase but its id, scheme and parameters.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from pathlib import Path
from typing import Any

import gmpy2
import tenseal.sealapi as sealapi
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hepipe.errors import KeyMismatch, MalformedFrame
from hepipe.schemes import seal
from hepipe.schemes.base import KeySet, PublicBundle
from hepipe.schemes.ckks_keys import CkksSecretKey
from hepipe.schemes.paillier_keys import PaillierSecretKey
from hepipe.schemes.secret import SecretKey
from hepipe.schemes.wire import pack_keys, unpack_keys

MAGIC, VERSION = b"HEPK", 1
_HEAD = struct.Struct(">4sBI")
_SALT, _NONCE, _SHORTEST = 16, 12, 12
_COST = {"n": 2**17, "r": 8, "p": 1}
_MAX_FILE = 1 << 28


def save_keys(path: str | os.PathLike[str], keys: KeySet, parameters: Any, passphrase: str) -> None:
    """Write all keys of their owner, the secret one sealed; the file is created with mode 0600, atomically.

    ValueError for a passphrase under 12 characters; FileExistsError rather than overwrite a key.
    """
    if len(passphrase) < _SHORTEST:
        raise ValueError(f"a passphrase of {len(passphrase)} characters: use at least {_SHORTEST}")
    public = pack_keys(PublicBundle(parameters, keys.public, keys.evaluation))
    header = json.dumps({"key_id": keys.secret.key_id, "public_bytes": len(public)}, sort_keys=True).encode()
    head = _HEAD.pack(MAGIC, VERSION, len(header)) + header + public
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    sealed = AESGCM(_derive(passphrase, salt)).encrypt(nonce, _material(keys.secret), head)
    _write_private(Path(path), head + salt + nonce + sealed)


def load_keys(path: str | os.PathLike[str], passphrase: str) -> tuple[KeySet, Any]:
    """The keys and parameters of a file written by ``save_keys``.

    KeyMismatch for a wrong passphrase or an altered file (the two cannot be told apart); MalformedFrame for a file
    that is not a key file.
    """
    head, public, rest = _parts(Path(path))
    salt, nonce, sealed = rest[:_SALT], rest[_SALT : _SALT + _NONCE], rest[_SALT + _NONCE :]
    if len(sealed) < 16:
        raise MalformedFrame(f"{Path(path).name} is truncated")
    try:
        material = AESGCM(_derive(passphrase, salt)).decrypt(nonce, sealed, head)
    except InvalidTag:
        raise KeyMismatch(f"{Path(path).name}: the passphrase is wrong, or the file was altered") from None
    bundle = unpack_keys(public, allow_insecure=True)
    secret = _restore(bundle, material)
    if secret.key_id != bundle.key_id:
        raise KeyMismatch(f"{Path(path).name}: the secret key does not belong to the public key beside it")
    return KeySet(secret, bundle.public, bundle.evaluation), bundle.parameters


def load_public(path: str | os.PathLike[str]) -> PublicBundle:
    """The public half of a file written by ``save_keys``, which takes no passphrase and is not authenticated.

    MalformedFrame for a file that is not a key file.
    """
    return unpack_keys(_parts(Path(path))[1], allow_insecure=True)


def _parts(path: Path) -> tuple[bytes, bytes, bytes]:
    """(all that is authenticated, the public keys in it, what is sealed) of a key file."""
    data = path.read_bytes()
    if len(data) > _MAX_FILE or len(data) < _HEAD.size or data[:4] != MAGIC:
        raise MalformedFrame(f"{path.name} is not a hepipe key file")
    _, version, size = _HEAD.unpack_from(data)
    start = _HEAD.size + size
    if version != VERSION or start > len(data):
        raise MalformedFrame(f"{path.name} is a key file of version {version}, expected {VERSION}, or truncated")
    end = start + _public_bytes(data[_HEAD.size : start])
    return data[:end], data[start:end], data[end:]


def _public_bytes(header: bytes) -> int:
    try:
        fields = json.loads(header)
        size = fields["public_bytes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MalformedFrame("the header of the key file cannot be read") from None
    if not isinstance(size, int) or not 0 < size < _MAX_FILE:
        raise MalformedFrame("the header of the key file cannot be read")
    return size


def _derive(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, **_COST).derive(passphrase.encode())


def _material(secret: SecretKey) -> bytes:
    if isinstance(secret, PaillierSecretKey):
        return json.dumps({name: hex(value) for name, value in secret.expose_factors().items()}).encode()
    return secret._material()


def _restore(bundle: PublicBundle, material: bytes) -> Any:
    if bundle.parameters.name == "paillier":
        return PaillierSecretKey.from_factors({n: gmpy2.mpz(int(v, 16)) for n, v in json.loads(material).items()})
    context = seal.context(bundle.parameters)
    handle = seal.load(sealapi.SecretKey(), context.seal, material)
    return CkksSecretKey(bundle.parameters, handle, bundle.key_id)


def _write_private(path: Path, data: bytes) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists: a key is never overwritten; delete it first if it is no longer needed")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.link(partial, path)  # fails if another process was first; a rename would overwrite
    partial.unlink()
