"""Letters: what is written is read, and nothing else is; names say what a job is waiting for."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.errors import MalformedFrame
from hepipe.service.mailbox_letters import LETTER_BYTES, Letter, Part, Place, jobs


def ids(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(bytes.hex)


PLACES = st.builds(Place, ids(32), ids(16), ids(16), ids(32))
LETTERS = st.builds(
    Letter, st.sampled_from(Part), PLACES, st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=64)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LETTERS)
def test_a_letter_is_read_as_it_was_written(letter):
    data = letter.to_bytes()
    assert len(data) == LETTER_BYTES + len(letter.body)
    assert Letter.parse(data) == letter


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LETTERS, st.data())
def test_any_other_byte_or_length_is_refused(letter, data):
    whole = letter.to_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    for other in (bytes(changed), whole[:place], whole + b"\0"):
        with pytest.raises(MalformedFrame):
            Letter.parse(other)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LETTERS, PLACES)
def test_a_letter_is_taken_where_it_belongs_only(letter, other):
    where = (letter.place, [letter.part], letter.attempt, letter.round)
    assert letter.expect(*where) is letter
    elsewhere = [
        (other, *where[1:]),
        *((dataclasses.replace(letter.place, **{name: getattr(other, name)}), *where[1:]) for name in vars(other)),
        (letter.place, [part for part in Part if part != letter.part], *where[2:]),
        (*where[:2], letter.attempt + 1, letter.round),
        (*where[:3], letter.round + 1),
    ]
    for wrong in elsewhere:
        if wrong[0] == letter.place and wrong[1:] == where[1:]:
            continue
        with pytest.raises(MalformedFrame, match="belongs to another"):
            letter.expect(*wrong)


JOB = "0123456789abcdef" * 2


def test_names_tell_what_a_job_waits_for():
    names = [f"{JOB}.{end}" for end in ("request", "claim-1", "ask-1-1", "answer-1-1", "ask-1-2")]
    (job,) = jobs(names).values()
    assert job.open == (1, 2)
    assert jobs([*names, f"{JOB}.claim-2"])[JOB].open is None
    assert jobs([*names, f"{JOB}.claim-2", f"{JOB}.ask-2-1"])[JOB].open == (2, 1)


OTHERS = (
    *("request", JOB, f"x{JOB}.request", f"{JOB.upper()}.request", ".partial-1"),
    *(f"{JOB}.{end}" for end in ("request-1", "claim", "claim-0", "claim-01", "claim-99999", "alive-1-1")),
    *(f"{JOB}.{end}" for end in ("ask-1", "ask-1-1-1", "ask-a-1", "answer-1-0", "answer--1", "other-1")),
)


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_anything_else_are_nobodys(name):
    assert jobs([name]) == {}
