"""Parameters: every check, and agreement with SEAL about primes and security."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gmpy2
import pytest
import tenseal.sealapi as sealapi
from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.errors import BudgetExhausted, HepipeError, InsecureParameters, OutOfRange, Unsupported
from hepipe.schemes.base import PublicBundle
from hepipe.schemes.parameters import (
    MAX_LOG_Q,
    TEST_INSECURE_CKKS,
    TEST_INSECURE_PAILLIER,
    CkksParameters,
    ClearParameters,
    PaillierParameters,
    spend,
)
from hepipe.schemes.primes import ntt_primes
from hepipe.schemes.registry import evaluator_of, scheme, scheme_of

DEGREES = (1024, 2048, 4096, 8192, 16384, 32768)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize(
    "sizes",
    [(60,), (60, 60), (60, 40, 40, 60), (50, 30, 30, 50), (31, 26, 26, 33), (60, *(40,) * 12, 60), (59, 58, 57, 59)],
)
def test_primes_are_those_that_seal_creates(degree: int, sizes: tuple[int, ...]) -> None:
    theirs = tuple(prime.value() for prime in sealapi.CoeffModulus.Create(degree, list(sizes)))
    assert ntt_primes(degree, sizes) == theirs


@settings(max_examples=60, deadline=None)
@given(degree=st.sampled_from(DEGREES), sizes=st.lists(st.integers(22, 60), min_size=1, max_size=6))
def test_any_sizes_give_seal_s_primes_or_a_typed_error(degree: int, sizes: list[int]) -> None:
    try:
        ours = ntt_primes(degree, tuple(sizes))
    except OutOfRange:
        with pytest.raises((RuntimeError, ValueError)):
            sealapi.CoeffModulus.Create(degree, sizes)
        return
    assert ours == tuple(prime.value() for prime in sealapi.CoeffModulus.Create(degree, sizes))
    assert all(
        gmpy2.is_prime(p) and p % (2 * degree) == 1 and p.bit_length() == s for p, s in zip(ours, sizes, strict=True)
    )
    assert len(set(ours)) == len(ours)


def test_primes_that_do_not_exist_are_not_searched_for_ever() -> None:
    with pytest.raises(OutOfRange, match="primes of 20 bits that are 1 modulo 65536, 40 were asked for"):
        ntt_primes(32768, (20,) * 40)


@pytest.mark.parametrize("degree", DEGREES)
def test_the_security_table_is_seal_s(degree: int) -> None:
    levels = {128: "TC128", 192: "TC192", 256: "TC256"}
    for bits, name in levels.items():
        level = getattr(sealapi.SEC_LEVEL_TYPE, name)
        assert MAX_LOG_Q[bits][degree] == sealapi.CoeffModulus.MaxBitCount(degree, level)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"poly_modulus_degree": 1000}, InsecureParameters, "no bound on log2"),
        ({"poly_modulus_degree": 65536}, InsecureParameters, "no bound on log2"),
        ({"standard_bits": 100}, InsecureParameters, "at 100 bits"),
        (
            {"coeff_modulus_bits": (60, 40, 40, 40, 60)},
            InsecureParameters,
            "240 at N=8192 is 22 bits over .* bound of 218",
        ),
        ({"standard_bits": 192}, InsecureParameters, "48 bits over the standard's bound of 152 for 192 bits"),
        ({"coeff_modulus_bits": ()}, OutOfRange, "at least one prime"),
        ({"coeff_modulus_bits": (61, 40)}, OutOfRange, "each of 20 to 60 bits"),
        ({"coeff_modulus_bits": (60, 19)}, OutOfRange, "each of 20 to 60 bits"),
        ({"coeff_modulus_bits": (60, 40.0, 60)}, OutOfRange, "sizes of primes are whole numbers"),
        ({"coeff_modulus_bits": (60,)}, OutOfRange, "need a special prime"),
        ({"complex_slots": True}, OutOfRange, "linear circuits only"),
        ({"log_scale": -1.0}, OutOfRange, "from 0 to 1000 bits"),
        ({"log_scale": math.nan}, OutOfRange, "from 0 to 1000 bits"),
        ({"log_scale": 1000.0}, OutOfRange, "from 0 to 1000 bits"),
        ({"tail_bits": -1.0}, OutOfRange, "from 0 to 1000 bits"),
        ({"tail_bits": math.inf}, OutOfRange, "from 0 to 1000 bits"),
        ({"rotations": (1.0,)}, OutOfRange, "steps are whole numbers"),
        (
            {"rotations": (1,), "complex_slots": True, "coeff_modulus_bits": (60, 40, 60)},
            OutOfRange,
            "complex slots cannot be rotated",
        ),
    ],
)
def test_ckks_parameters_are_checked(changes: dict[str, Any], error: type[HepipeError], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(CkksParameters(), **changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"modulus_bits": 1024, "lanes": 1}, InsecureParameters, "about 80 bits of security: use 3072"),
        ({"modulus_bits": 2047, "lanes": 1}, InsecureParameters, "use 3072"),
        ({"modulus_bits": 512, "lanes": 1}, InsecureParameters, "about 0 bits"),
        ({"modulus_bits": 3073}, OutOfRange, "multiple of 64"),
        ({"lanes": 0}, OutOfRange, "lanes >= 1"),
        ({"lane_bits": 2}, OutOfRange, "lane_bits >= 3"),
        ({"depth": -1}, OutOfRange, "depth >= 0"),
        ({"log_scale": 28.5}, OutOfRange, "whole bits"),
        ({"log_plain_scale": 28.5}, OutOfRange, "whole bits"),
        ({"log_scale": -1}, OutOfRange, "whole bits"),
        ({"log_scale": math.nan}, OutOfRange, "whole bits"),
        ({"log_scale": math.inf}, OutOfRange, "whole bits"),
        ({"lanes": 32}, OutOfRange, "32 lanes of 96 bits need 3074 bits, the modulus has 3072: use at most 31 lanes"),
    ],
)
def test_paillier_parameters_are_checked(changes: dict[str, Any], error: type[HepipeError], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(PaillierParameters(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": -1},
        {"slots": 0},
        {"log_scale": -1.0},
        {"log_plain_scale": math.nan},
        {"exact": True, "log_scale": 28.5},
    ],
)
def test_clear_parameters_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(OutOfRange):
        replace(ClearParameters(), **changes)


def test_rotations_are_kept_sorted_and_modulo_the_slots() -> None:
    parameters = replace(TEST_INSECURE_CKKS, rotations=(3, -1, 512, 0, 511, 1))
    assert parameters.rotations == (1, 3, 511)
    assert repr(parameters) != repr(TEST_INSECURE_CKKS)
    assert not parameters.sums_samples
    assert replace(TEST_INSECURE_CKKS, rotations=[2**i for i in range(9)]).sums_samples


def test_a_list_of_sizes_is_as_good_as_a_tuple() -> None:
    parameters = CkksParameters(coeff_modulus_bits=[60, 40, 60])  # type: ignore[arg-type]
    assert hash(parameters) == hash(CkksParameters(coeff_modulus_bits=(60, 40, 60)))


@pytest.mark.parametrize(
    ("bits", "security"), [(1024, 80), (2048, 112), (3072, 128), (4096, 128), (7680, 192), (15360, 256), (512, 0)]
)
def test_security_of_a_modulus_is_nist_s(bits: int, security: int) -> None:
    assert PaillierParameters(bits, lanes=1, insecure=bits < 2048).security_bits == security


def test_test_sets_say_that_they_are_insecure() -> None:
    assert TEST_INSECURE_PAILLIER.insecure
    assert TEST_INSECURE_CKKS.insecure
    assert TEST_INSECURE_CKKS.security_bits == 0
    assert not ClearParameters().insecure
    assert ClearParameters().security_bits == 0
    assert CkksParameters().security_bits == 128
    assert CkksParameters(coeff_modulus_bits=(60, 30, 60), standard_bits=192).security_bits == 192


@pytest.mark.parametrize(
    ("chain", "tail", "depth"),
    [((60, 60), 0.0, 0), ((60, 40, 60), 0.0, 1), ((60, 60), 20.0, 1), ((60, 40, 60), 20.0, 2), ((54,), 20.0, 1)],
)
def test_depth_is_one_a_rescaling_prime_and_one_for_a_tail(chain: tuple[int, ...], tail: float, depth: int) -> None:
    assert CkksParameters(8192, chain, 30.0, tail_bits=tail, complex_slots=depth < 2).depth == depth


def test_a_level_names_its_primes_and_its_room() -> None:
    parameters = TEST_INSECURE_CKKS
    assert [len(parameters.primes_at(level)) for level in (0, 1, 2)] == [1, 2, 3]
    assert [parameters.rescale_bits(level) > 0 for level in (0, 1, 2)] == [False, True, True]
    assert [round(parameters.capacity_bits(level)) for level in (0, 1, 2)] == [48, 78, 108]
    assert parameters.plain_bits(2) == parameters.rescale_bits(2) == math.log2(parameters.coeff_modulus[2])
    tail = CkksParameters(1024, (60, 40), 20.0, tail_bits=18.0, complex_slots=True, insecure=True)
    assert (tail.plain_bits(1), tail.rescale_bits(1), tail.chain_index(1)) == (18.0, 0.0, 0)
    assert tail.slots == 1024
    assert tail.capacity_bits(1) == pytest.approx(58, abs=1e-3)


@pytest.mark.parametrize("level", [0, -1])
def test_levels_cannot_be_overspent(level: int) -> None:
    with pytest.raises(BudgetExhausted, match=f"mul needs 1 level, {level} left of 3: plan with depth >= 4"):
        spend(level, 3, "mul")


def test_a_level_is_spent_a_product() -> None:
    assert spend(2, 3, "mul") == 1


def test_errors_shrink_with_the_scale() -> None:
    small, large = TEST_INSECURE_CKKS, replace(TEST_INSECURE_CKKS, log_scale=31.0)
    assert small.fresh_error()[1] == 2 * large.fresh_error()[1] > 0
    assert small.product_error(30, 1) == 2 * small.product_error(31, 1) > 0
    assert PaillierParameters().fresh_error() == (2.0**-29, 0.0)
    assert PaillierParameters().product_error(28, 1) == ClearParameters().product_error(28, 1) == 0.0
    assert ClearParameters().fresh_error() == (0.0, 0.0)
    assert ClearParameters(exact=True).fresh_error() == (2.0**-41, 0.0)


def test_clear_parameters_stand_for_either_kind_of_arithmetic() -> None:
    floats, integers = ClearParameters(), ClearParameters(exact=True)
    assert (floats.rescale_bits(1), integers.rescale_bits(1)) == (40, 0.0)
    assert (floats.capacity_bits(1), integers.capacity_bits(1)) == (1000.0, math.inf)
    assert floats.ciphertext_bytes(0) == 8


# --- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", [ClearParameters(), TEST_INSECURE_PAILLIER, TEST_INSECURE_CKKS], ids=lambda p: p.name
)
def test_parameters_name_their_scheme(parameters: Any) -> None:
    made = scheme_of(parameters)
    assert (made.name, made.parameters) == (parameters.name, parameters)
    keys: Any = made.keygen()
    assert evaluator_of(PublicBundle(parameters, keys.public, keys.evaluation)).key_id == keys.public.key_id


@pytest.mark.parametrize(
    ("depth", "degree"), [(0, 8192), (1, 8192), (2, 8192), (3, 16384), (7, 16384), (8, 32768), (19, 32768)]
)
def test_a_depth_alone_picks_the_smallest_ring(depth: int, degree: int) -> None:
    parameters: Any = scheme("ckks", depth=depth).parameters
    assert (parameters.poly_modulus_degree, parameters.depth, parameters.security_bits) == (degree, depth, 128)
    smaller = degree // 2
    assert sum(parameters.coeff_modulus_bits) > MAX_LOG_Q[128][smaller] or smaller < 4096


def test_a_depth_no_ring_has_is_refused() -> None:
    with pytest.raises(Unsupported, match="more than N=32768 allows"):
        scheme("ckks", depth=20)


def test_a_scheme_by_name_fills_its_lanes() -> None:
    assert scheme("paillier").parameters.slots == 31
    assert scheme("paillier", modulus_bits=2048).parameters.slots == 21
    assert scheme("paillier", lane_bits=48).parameters.slots == 63
    assert scheme("paillier", lanes=2).parameters.slots == 2
    assert scheme("clear", depth=3).parameters.depth == 3
    with pytest.raises(Unsupported, match="no scheme named 'bfv'"):
        scheme("bfv")
