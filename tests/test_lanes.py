"""Lanes: any signed values go in and come out; anything above the lanes is an error."""

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepipe.errors import OutOfRange
from hepipe.schemes.lanes import pack, repunit, signed, unpack

N = (gmpy2.mpz(1) << 1024) - 105


@st.composite
def columns(draw):
    lane_bits = draw(st.integers(2, 200))
    half = 1 << (lane_bits - 1)
    edges = st.sampled_from([-half, half - 1, -1, 0, 1])
    values = st.one_of(edges, st.integers(-half, half - 1))
    return lane_bits, draw(st.lists(values, max_size=1022 // lane_bits))


@given(columns())
def test_round_trip(case):
    lane_bits, column = case
    packed = pack(column, lane_bits)
    assert packed == sum(v << (lane_bits * i) for i, v in enumerate(column))
    assert unpack(packed % N, N, lane_bits, len(column)) == column


@pytest.mark.parametrize("lane_bits", [2, 3, 63, 64, 65, 96, 1022])
def test_edges_of_a_full_plaintext(lane_bits):
    count, half = 1022 // lane_bits, 1 << (lane_bits - 1)
    for value in (-half, half - 1):
        assert unpack(pack([value] * count, lane_bits) % N, N, lane_bits, count) == [value] * count


@given(columns(), st.integers(-(2**20), 2**20))
def test_lanes_add_and_scale_as_one_integer(case, factor):
    lane_bits, column = case
    wide = lane_bits + 22
    column = column[: 1022 // wide]
    total = pack(column, wide) * factor + pack(column, wide)
    assert unpack(total % N, N, wide, len(column)) == [v * factor + v for v in column]


@pytest.mark.parametrize("value", [8, -9, 1 << 80])
def test_a_value_too_large_for_its_lane(value):
    with pytest.raises(OutOfRange, match="lane of 4 bits"):
        pack([0, value], 4)


@pytest.mark.parametrize("plaintext", [pack([1, 2, 3], 8), pack([1, 2, -3], 8), N // 2, N // 2 + 1])
def test_something_above_the_lanes(plaintext):
    with pytest.raises(OutOfRange, match="an overflow, or a wrong key"):
        unpack(plaintext % N, N, 8, 2)


def test_zero_and_nothing():
    assert pack([], 8) == 0
    assert unpack(gmpy2.mpz(0), N, 8, 3) == [0, 0, 0]
    assert unpack(pack([-128, -128], 8) % N, N, 8, 2) == [-128, -128]
    assert unpack(gmpy2.mpz(0), N, 8, 0) == []


def test_repunit_spreads_a_value():
    assert repunit(8, 3) == 0x010101
    assert unpack(-5 * repunit(8, 3) % N, N, 8, 3) == [-5, -5, -5]


@given(st.integers(-(2**1022), 2**1022))
def test_signed_is_the_nearest_representative(value):
    assert signed(value % N, N) == value
