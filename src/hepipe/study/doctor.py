"""Is everything there, and is it what it seems to be: each check with the command that mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = (3, 11)
NEEDED = ("numpy", "pandas", "scikit-learn", "matplotlib", "cryptography", "zstandard", "tenseal", "phe", "gmpy2")
RUNNER = ("papermill", "nbclient", "ipykernel")
MODULES = {"scikit-learn": "sklearn"}
"""Packages that are imported under another name."""

_REINSTALL = "{python} -m pip install --force-reinstall --no-deps {package}"


@dataclass(frozen=True)
class Check:
    """One finding; ``fix`` is the command or advice for when it is not ``ok``; what is not ``needed`` may be absent."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True

    @property
    def fails(self) -> bool:
        """Whether hepipe cannot work as it is."""
        return self.needed and not self.ok


def checks() -> Iterator[Check]:
    """Every check, as it is made. None of them raises or uses the network."""
    yield _python()
    yield _platform()
    yield from map(_package, NEEDED)
    yield from (_package(name, f"{sys.executable} -m pip install 'hepipe[notebooks]'") for name in RUNNER)
    yield _torch()
    for name, check, fix in _PROBES:
        yield _probe(name, check, fix)
    for name in ("salary", "chd", "heart"):
        yield _data(name)


def _python() -> Check:
    found = f"{platform.python_version()} ({platform.python_implementation()})"
    return Check("python", sys.version_info >= PYTHON, found, "make clean && make setup PYTHON=python3.11")


def _platform() -> Check:
    system, machine = platform.system(), platform.machine()
    known = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
    advice = "tenseal has wheels for Linux x86_64 and aarch64 and macOS 14+ arm64: use one of them, or a container"
    return Check("platform", (system, machine) in known, f"{system} {machine}", advice, needed=False)


def _package(name: str, fix: str | None = None) -> Check:
    fix = fix or f"{sys.executable} -m pip install {name}"
    try:
        importlib.import_module(MODULES.get(name, name))
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, True, "version unknown")
    except Exception as error:  # an import can fail in any way: a missing library, an illegal instruction's wrapper
        return Check(name, False, f"{type(error).__name__}: {error}", fix)


def _torch() -> Check:
    """Read from the file that says how torch was built: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        fix = f"uv pip install --torch-backend=cpu --python {sys.executable} torch"
        return Check("torch", False, "not installed; optional", fix, needed=False)
    stated = Path(spec.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    version = importlib.metadata.version("torch")
    cuda = re.search(r"^cuda\b[^=]*= '([\d.]+)'", stated, re.MULTILINE)
    build = f"built for CUDA {cuda[1]}, which hepipe never uses" if cuda else "built for the CPU"
    return Check("torch", True, f"{version}, {build}", needed=False)


def _probe(name: str, probe: Callable[[], str], fix: str) -> Check:
    """``probe`` returns what it found, or raises with what is wrong."""
    command = fix.format(python=sys.executable)
    try:
        return Check(name, True, probe(), command)
    except Exception as error:  # whatever is wrong below is the finding
        return Check(name, False, f"{type(error).__name__}: {error}", command)


def _phe_uses_gmpy2() -> str:
    from phe import util

    if not util.HAVE_GMP:
        raise RuntimeError("phe computes with Python integers, many times slower")
    return "phe computes with gmpy2"


def _seal_format() -> str:
    import tenseal.sealapi as sealapi

    from hepipe.schemes import seal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stream")
        sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS).save(str(path))
        version = tuple(path.read_bytes()[3:5])
    if version != seal.FORMAT_VERSION:
        raise RuntimeError(f"SEAL writes format {version}, hepipe reads {seal.FORMAT_VERSION}")
    return f"SEAL writes format {version[0]}.{version[1]}, as expected"


def _round_trip(parameters: Any) -> str:
    from hepipe.schemes.registry import scheme_of

    scheme = scheme_of(parameters)
    keys = scheme.keygen()
    x = scheme.encryptor(keys.secret).encrypt([[1.5], [-2.0]], 4.0)
    error = float(abs(scheme.decryptor(keys.secret).decrypt(x) - [[1.5], [-2.0]]).max())
    if error > 1e-3:
        raise RuntimeError(f"1.5 and -2 came back with an error of {error:.2g}")
    return "encrypts and decrypts (with a test key)"


def _paillier() -> str:
    from hepipe.schemes.parameters import TEST_INSECURE_PAILLIER

    return _round_trip(TEST_INSECURE_PAILLIER)


def _ckks() -> str:
    from hepipe.schemes.parameters import TEST_INSECURE_CKKS

    return _round_trip(TEST_INSECURE_CKKS)


_PROBES = (
    ("phe with gmpy2", _phe_uses_gmpy2, _REINSTALL.replace("{package}", "gmpy2 phe")),
    ("SEAL format", _seal_format, "{python} -m pip install --force-reinstall --no-deps tenseal==0.3.18"),
    ("paillier", _paillier, _REINSTALL.replace("{package}", "gmpy2 phe")),
    ("ckks", _ckks, _REINSTALL.replace("{package}", "tenseal zstandard")),
)


def _data(name: str) -> Check:
    from hepipe.errors import DataError
    from hepipe.study.datasets import load

    fetch = f"{sys.executable} -c \"import hepipe; hepipe.load('{name}', offline=False)\""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = load(name, offline=True)
    except DataError as error:
        return Check(f"data {name}", False, str(error), "do what the message says, or delete the file")
    kind = "generated" if data.synthetic else "real"
    stand_in = data.synthetic and "LOOK-ALIKE" in data.source
    return Check(f"data {name}", not stand_in, f"{kind}: {data.source}", fetch, needed=False)
