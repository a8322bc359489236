"""Every vector through its decoder: what is invalid is refused by the error it names, what is valid is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import hepipe.errors
from fixed_keys import ckks_bundle, paillier_bundle
from hepipe.errors import HepipeError
from hepipe.models.bundle import unpack
from hepipe.protocol.parties import registered
from hepipe.schemes.base import PublicBundle
from hepipe.schemes.frames import Kind, parse, split
from hepipe.schemes.wire import unpack_tensor
from hepipe.service.inference import unpack_request
from hepipe.service.mailbox_letters import Letter
from vectors.__main__ import written
from vectors.ckks import PARAMETERS
from vectors.recipe import of_vector

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.json"))
Test = dict[str, Any]


@cache
def group(name: str) -> dict[str, Any]:
    (one,) = json.loads((HERE / f"{name}.json").read_text())["testGroups"]
    return one  # type: ignore[no-any-return]


def paillier() -> PublicBundle:
    bundle = paillier_bundle(group("paillier_tensor")["key"]["modulusBits"])
    assert f"{int(bundle.public.n):x}" == group("paillier_tensor")["key"]["n"]
    return bundle


def ckks() -> PublicBundle:
    bundle = ckks_bundle(PARAMETERS)
    assert bundle.key_id == group("ckks_tensor")["key"]["keyId"]
    return bundle


def key(data: bytes, test: Test) -> object:
    return registered(data, allow_insecure=True)


DECODERS: dict[str, Callable[[bytes, Test], object]] = {
    "envelope": lambda data, test: [parse(part, *Kind) for part in split(data)],
    "paillier_tensor": lambda data, test: unpack_tensor(data, paillier()),
    "paillier_key": key,
    "ckks_tensor": lambda data, test: unpack_tensor(data, ckks()),
    "ckks_key": key,
    "bundle": lambda data, test: unpack(data),
    "inference": lambda data, test: unpack_request(data, test["length"]),
    "letter": lambda data, test: Letter.parse(data),
}


def cases(result: str) -> list[Any]:
    return [
        pytest.param(name, test, id=f"{name}-{test['tcId']}-{test['comment'][:40]}")
        for name in NAMES
        for test in group(name)["tests"]
        if test["result"] == result
    ]


@pytest.mark.parametrize(("name", "test"), cases("invalid"))
def test_an_invalid_input_is_refused_by_the_error_it_names(name: str, test: Test) -> None:
    with pytest.raises(HepipeError) as refusal:
        DECODERS[name](of_vector(test), test)
    assert type(refusal.value) is getattr(hepipe.errors, test["error"]), refusal.value


@pytest.mark.parametrize(("name", "test"), cases("valid"))
def test_a_control_is_accepted(name: str, test: Test) -> None:
    assert DECODERS[name](of_vector(test), test)


def test_there_are_as_many_as_promised_and_each_decoder_has_controls() -> None:
    assert set(NAMES) == set(DECODERS)
    assert len(cases("invalid")) >= 250
    assert {name for name, _ in (case.values for case in cases("valid"))} == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bundle"])  # a fitted tree is in that one
def test_the_generator_gives_what_is_committed(name: str) -> None:
    assert written(name) == (HERE / f"{name}.json").read_text()


def test_no_two_vectors_of_a_decoder_are_the_same() -> None:
    for name in NAMES:
        inputs = [(of_vector(test), test.get("length")) for test in group(name)["tests"]]
        assert len(set(inputs)) == len(inputs), name


def test_the_files_are_small_and_say_what_their_flags_mean() -> None:
    assert sum((HERE / f"{name}.json").stat().st_size for name in NAMES) < 1_000_000
    for name in NAMES:
        whole = json.loads((HERE / f"{name}.json").read_text())
        assert whole["numberOfTests"] == len(group(name)["tests"])
        assert set(whole["notes"]) == {flag for test in group(name)["tests"] for flag in test["flags"]}
        assert max(len(json.dumps(test)) for test in group(name)["tests"]) < 20_000
