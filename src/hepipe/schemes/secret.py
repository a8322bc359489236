"""What every secret key refuses: to be pickled, copied, turned into bytes or printed."""

from __future__ import annotations

from typing import NoReturn


class SecretKey:
    """Base of secret keys. Leaves its holder only through keystore.save_keys, encrypted with a passphrase."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id

    def __repr__(self) -> str:
        return f"<SecretKey {self.key_id[:4]}…>"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a SecretKey does not leave its holder: use hepipe.schemes.keystore.save_keys")

    __reduce__ = __reduce_ex__ = __getstate__ = __copy__ = __deepcopy__ = __bytes__ = _refuse

    def _material(self) -> bytes:
        raise NotImplementedError
