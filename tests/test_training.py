"""Outsourced training: the plan's promises, who sees what, damage and hostile bytes, and a process killed midway."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
import pytest

from hepipe.errors import (
    HepipeError,
    InsecureParameters,
    KeyMismatch,
    MalformedFrame,
    OutOfRange,
    PeerLost,
    Unsupported,
)
from hepipe.protocol.link import LocalLink
from hepipe.schemes.base import FloatArray
from hepipe.schemes.fixedpoint import to_fixed
from hepipe.schemes.frames import Kind, kind_of
from hepipe.schemes.secret import SecretKey
from hepipe.training.checkpoint import MANIFEST, Checkpoint
from hepipe.training.descent import DOMAIN, Descent
from hepipe.training.parties import Owner, Trainer
from hepipe.training.plan import TrainingPlan, plan_training
from hepipe.training.rehearsal import trajectory
from object_graph import reachable
from training_child import COLUMNS, ROWS, STEPS, planned


def rows_of(count: int, columns: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, columns)).clip(-3.9, 3.9)


def parties(plan: TrainingPlan) -> tuple[Owner, Trainer]:
    owner = Owner(plan)
    return owner, Trainer(plan, owner.public_bytes(), allow_insecure=True)


WAYS = {
    "clear": ("clear", Descent(20, 4, rate=1.0), 3),
    "clear, refreshed": ("clear", Descent(20, 4, rate=1.0, refresh=True), 3),
    "ckks": ("ckks", Descent(70, 3, rate=1.0), 5),
    "ckks, several blocks": ("ckks", Descent(1100, 3, rate=1.0, degree=5, l2=0.1), 4),
    "ckks, refreshed": ("ckks", Descent(70, 4, rate=1.0, refresh=True), 5),
    "ckks, refreshed Nesterov": ("ckks", Descent(70, 4, rate=1.0, momentum=True, refresh=True), 5),
    "paillier": ("paillier", Descent(4, 2, rate=1.0), 2),
    "paillier, refreshed": ("paillier", Descent(4, 3, rate=1.0, momentum=True, refresh=True), 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_does_what_its_plan_says(way: str) -> None:
    scheme, descent, columns = WAYS[way]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    rows = rows_of(descent.rows, columns)
    owner, trainer = parties(plan)
    frames = owner.encrypt(rows)
    trainer.receive(frames)
    link = owner.link()
    assert list(trainer.run(link)) == list(range(1, descent.steps + 1))
    result = trainer.result()
    error = np.abs(owner.weights(result) - trajectory(plan.descent, rows)[-1]).max()
    assert error <= plan.error_estimate
    assert (scheme == "clear") == (error < 1e-14)
    assert link.transcript.rounds == plan.rounds
    assert sum(map(len, frames)) + link.transcript.bytes_up == plan.bytes_up
    assert len(result) + link.transcript.bytes_down == plan.bytes_down
    assert len(owner.public_bytes()) == plan.key_bytes
    assert plan.rounds == 0 or way.startswith(("ckks, refreshed", "paillier"))


@pytest.mark.secure
def test_two_steps_at_a_secure_size() -> None:
    rows = rows_of(3000, 15)
    plan = plan_training(Descent(len(rows), 2, rate=2.0), 15, row_bound=4.0)
    assert (plan.security_bits, plan.parameters.poly_modulus_degree, plan.rounds) == (128, 8192, 0)
    owner = Owner(plan)
    trainer = Trainer(plan, owner.public_bytes())
    trainer.receive(owner.encrypt(rows))
    assert list(trainer.run()) == [1, 2]
    assert np.abs(owner.weights(trainer.result()) - trajectory(plan.descent, rows)[-1]).max() <= plan.error_estimate


def test_the_transcript_counts_every_decryption_but_the_result_s() -> None:
    scheme, descent, columns = WAYS["ckks, refreshed"]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    owner, trainer = parties(plan)
    decryptor = owner._client._decryptor
    seen: list[tuple[int, int]] = []
    for name in ("decrypt", "decrypt_integers"):
        whole = getattr(decryptor, name)
        setattr(decryptor, name, lambda x, whole=whole: (seen.append(x.shape), whole(x))[1])
    trainer.receive(owner.encrypt(rows_of(descent.rows, columns)))
    link = owner.link()
    list(trainer.run(link))
    assert len(seen) == link.transcript.rounds == plan.rounds == descent.steps - 1
    assert {message.kind for message in link.transcript.messages} == {"refresh"}
    owner.weights(trainer.result())
    assert len(seen) == plan.rounds + 1
    assert "mask of" in plan.reveals


# --- who sees what ---------------------------------------------------------------------------------------------------


def numbers_in(root: object) -> set[float]:
    """Floats to 9 decimals, whole numbers as they are."""
    found: set[float] = set()
    for item in reachable(root):
        if isinstance(item, np.ndarray) and item.dtype.kind == "f":
            found.update(np.round(item.ravel(), 9).tolist())
        elif isinstance(item, float):
            found.add(round(item, 9))
        elif isinstance(item, int | gmpy2.mpz):
            found.add(int(item))
    return found


def hidden(plan: TrainingPlan, rows: FloatArray) -> FloatArray:
    """Rows with labels folded in, and the weights after each step, as they are and as they are iterated; both signs."""
    path = trajectory(plan.descent, rows)
    values = np.concatenate([part.ravel() for part in (rows, path, path / DOMAIN)])
    return np.concatenate([values, -values])


def whole(plan: TrainingPlan, values: FloatArray) -> set[int]:
    """The same in fixed point, but for numbers so small that they may be a count."""
    return {int(v) for v in to_fixed(values, int(plan.parameters.log_scale)) if abs(v) > 2**16}


@pytest.mark.parametrize("way", ["ckks", "ckks, refreshed", "paillier, refreshed"])
def test_the_trainer_holds_no_row_no_label_no_weight_and_no_key(way: str) -> None:
    scheme, descent, columns = WAYS[way]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    rows = rows_of(descent.rows, columns)
    owner, trainer = parties(plan)
    frames = owner.encrypt(rows)
    trainer.receive(frames, owner.tag(rows))
    secret = {*np.round(hidden(plan, rows), 9).tolist(), *whole(plan, hidden(plan, rows))}
    for _ in trainer.run(owner.link()):
        assert not secret & numbers_in(trainer)
        assert not [item for item in reachable(trainer) if isinstance(item, SecretKey)]
    assert not [item for item in reachable(trainer) if type(item).__name__ == "Decryptor"]
    found = numbers_in([rows, gmpy2.mpz(min(whole(plan, rows.ravel())))])
    assert len(secret & found) > rows.size  # the walk does find what is there
    assert [item for item in reachable(owner) if isinstance(item, SecretKey)]


def modulus(owner: Owner) -> int:
    return int(owner._client.public().public.n)


def shown(plan: TrainingPlan, owner: Owner, values: FloatArray) -> list[bytes]:
    """How numbers look in a message that does not hide them: doubles, or Paillier plaintexts bare or without r**n."""
    forms = [struct.pack(order, value) for value in values for order in (">d", "<d")]
    if plan.parameters.name == "paillier":
        n, size = modulus(owner), plan.parameters.ciphertext_bytes(0)
        bare = whole(plan, values)
        forms += [v.to_bytes(size, "big") for m in bare for v in (m % n, (1 + m % n * n) % n**2)]
    return forms


@pytest.mark.parametrize("way", ["clear", "ckks", "ckks, refreshed", "paillier, refreshed"])
def test_no_message_either_way_holds_a_row_or_a_weight_in_the_clear(way: str) -> None:
    scheme, descent, columns = WAYS[way]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    rows = rows_of(descent.rows, columns)
    owner, trainer = parties(plan)
    messages = owner.encrypt(rows)
    trainer.receive(list(messages))

    def answer(request: bytes) -> bytes:
        messages.extend([request, owner._client.answer(request)])
        return messages[-1]

    list(trainer.run(LocalLink(answer)))
    messages.append(trainer.result())
    assert len(messages) == len(plan.shapes) + 2 * plan.rounds + 1
    sent, forms = b"".join(messages), shown(plan, owner, hidden(plan, rows))
    assert any(form in sent for form in forms) == (scheme == "clear")


@pytest.mark.parametrize("weakened", ["bare", "unblinded"])
def test_the_search_in_messages_finds_plaintexts_of_paillier(weakened: str) -> None:
    scheme, descent, columns = WAYS["paillier"]
    plan, rows = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0), rows_of(4, 2)
    owner = Owner(plan)
    x = owner._client.encrypt(rows)
    n, integers = modulus(owner), to_fixed(rows, int(plan.parameters.log_scale))
    data = [[gmpy2.mpz(m % n if weakened == "bare" else 1 + m % n * n) for m in row] for row in integers.tolist()]
    assert any(form in owner._client.pack(replace(x, data=data)) for form in shown(plan, owner, hidden(plan, rows)))


def test_messages_have_one_shape_whatever_the_data() -> None:
    scheme, descent, columns = WAYS["ckks, refreshed"]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    traffic = []
    for rows in (rows_of(descent.rows, columns), 0.01 * rows_of(descent.rows, columns, 1)):
        owner, trainer = parties(plan)
        frames = owner.encrypt(rows)
        trainer.receive(frames)
        link = owner.link()
        list(trainer.run(link))
        traffic.append(([frame[:-1][4:8] for frame in frames], link.transcript.messages, len(trainer.result())))
    assert traffic[0] == traffic[1]


# --- the owner's checks ----------------------------------------------------------------------------------------------


def test_nothing_is_encrypted_for_a_descent_that_could_leave_the_domain() -> None:
    plan = plan_training(Descent(70, 3, rate=90.0), 5, row_bound=4.0, security_bits=0)
    with pytest.raises(OutOfRange, match="use rate <= "):
        Owner(plan).encrypt(rows_of(70, 5))


def test_rows_other_than_planned_are_refused() -> None:
    owner = Owner(planned())
    with pytest.raises(OutOfRange, match="the plan is for 60"):
        owner.encrypt(rows_of(59, COLUMNS))
    with pytest.raises(OutOfRange, match="over the bound 8"):
        owner.encrypt(rows_of(60, COLUMNS).clip(0.1, 0.2) + 9 * (np.arange(60)[:, None] == 7) * np.eye(4)[0])


def test_a_tag_is_known_again_by_its_owner_only() -> None:
    plan, rows = planned(), rows_of(ROWS, COLUMNS)
    owner, other = Owner(plan), Owner(plan)
    assert owner.tag(rows) == owner.tag(rows.copy())
    assert len({owner.tag(rows), owner.tag(-rows), other.tag(rows)}) == 3


# --- the trainer's checks --------------------------------------------------------------------------------------------


def test_a_trainer_takes_secure_keys_of_its_own_plan_only() -> None:
    owner = Owner(planned())
    with pytest.raises(InsecureParameters):
        Trainer(planned(), owner.public_bytes())
    other = plan_training(Descent(60, 2, rate=1.0), COLUMNS, row_bound=8.0, security_bits=0)
    with pytest.raises(KeyMismatch, match="make new keys"):
        Trainer(other, owner.public_bytes(), allow_insecure=True)
    trainer = Trainer(planned(), owner.public_bytes(), allow_insecure=True)
    with pytest.raises(OutOfRange, match="receive rows and run first"):
        trainer.result()


def test_rows_of_another_shape_level_bound_or_key_are_refused() -> None:
    plan = planned()
    owner, trainer = parties(plan)
    client, shape = owner._client, plan.shapes[0]
    whole = np.full(shape, 0.5)
    high = client._encryptor.encrypt(whole, 16.0)
    spent = trainer._evaluator.mul_plain(client.encrypt(whole), 1.0)
    stranger = Owner(plan)._client.encrypt(whole)
    cases: list[tuple[list[bytes], type[HepipeError], str]] = [
        ([], MalformedFrame, "shapes"),
        ([client.pack(client.encrypt(whole[:, :2]))], MalformedFrame, "shapes"),
        ([client.pack(high)], MalformedFrame, "rows up to 16, the plan is for 8"),
        ([client.pack(spent)], MalformedFrame, "not freshly encrypted"),
        ([replace_key(stranger, owner)], MalformedFrame, "digest"),
    ]
    for frames, error, words in cases:
        with pytest.raises(error, match=words):
            trainer.receive(frames)
    with pytest.raises(KeyMismatch):
        trainer.receive([Owner(plan).encrypt(rows_of(ROWS, COLUMNS))[0]])


def replace_key(x: Any, owner: Owner) -> bytes:
    """A frame that names a key it was not made for."""
    frame = bytearray(owner._client.pack(replace(x, key_id=owner._client.public().key_id)))
    frame[-1] ^= 1
    return bytes(frame)


# --- plans -----------------------------------------------------------------------------------------------------------


def test_plans_are_the_smallest_rings_with_their_levels() -> None:
    chd = {"rows": 3390, "rate": 4.0}
    free = plan_training(Descent(steps=3, **chd), 16)
    assert (free.parameters.poly_modulus_degree, free.levels, free.rounds) == (16384, 7, 0)
    assert free.reveals == "weights"
    assert free.error_estimate < 1e-3
    refreshed = plan_training(Descent(steps=20, refresh=True, **chd), 16)
    assert (refreshed.parameters.poly_modulus_degree, refreshed.levels, refreshed.rounds) == (8192, 4, 19)
    assert refreshed.security_bits == free.security_bits == 128
    assert 80 * 2**20 < free.key_bytes < 110 * 2**20
    assert free.parameters.rotations == tuple(sorted(step % 8192 for step in free.layout.rotations))


def test_what_cannot_be_planned_says_what_to_do() -> None:
    with pytest.raises(Unsupported, match="take fewer steps"):
        plan_training(Descent(3390, 30), 16)
    with pytest.raises(Unsupported, match="no scheme named"):
        plan_training(Descent(10, 2), 3, "bfv")
    with pytest.raises(InsecureParameters):
        plan_training(Descent(10, 2), 3, security_bits=100)


def test_a_digest_names_all_that_was_agreed() -> None:
    plan = planned()
    same = plan_training(plan.descent, COLUMNS, row_bound=8.0, security_bits=0)
    assert same.digest() == plan.digest()
    others = [
        plan_training(replace(plan.descent, rate=0.5), COLUMNS, row_bound=8.0, security_bits=0),
        plan_training(plan.descent, COLUMNS, row_bound=4.0, security_bits=0),
        plan_training(plan.descent, COLUMNS, "clear", row_bound=8.0),
    ]
    assert len({plan.digest(), *(other.digest() for other in others)}) == 4


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_and_nothing_else_stays(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new")
    assert checkpoint.load() is None
    checkpoint.save({"step": 1}, {"a": b"first", "b": b"kept"})
    written = {path: path.stat().st_mtime_ns for path in checkpoint.folder.glob("*.frame")}
    checkpoint.save({"step": 2}, {"a": b"second", "b": b"kept"})
    assert checkpoint.load() == Checkpoint(checkpoint.folder).load() == ({"step": 2}, {"a": b"second", "b": b"kept"})
    left = list(checkpoint.folder.iterdir())
    assert len(left) == 3
    assert sum(path in written and path.stat().st_mtime_ns == written[path] for path in left) == 1


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"frames":{},"public":{},"version":2}',
        b'{"frames":{},"public":[],"version":1}',
        b'{"frames":{}, "public":{},"version":1}',
        b'{"frames":{"a":"../../etc/passwd"},"public":{},"version":1}',
        b'{"frames":{"a":1},"public":{},"version":1}',
        b'{"frames":{"a":"' + b"0" * 64 + b'"},"public":{},"version":1}',
        b'{"frames":{},"public":{"x":NaN},"version":1}',
    ],
)
def test_a_manifest_that_was_never_written_is_refused(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(manifest)
    with pytest.raises(MalformedFrame):
        Checkpoint(tmp_path).load()


def test_an_altered_frame_is_found(tmp_path: Path) -> None:
    Checkpoint(tmp_path).save({}, {"a": b"frame"})
    next(tmp_path.glob("*.frame")).write_bytes(b"other")
    with pytest.raises(MalformedFrame, match="altered"):
        Checkpoint(tmp_path).load()


@cache
def whole_run() -> tuple[bytes, list[bytes], FloatArray, dict[str, bytes], FloatArray]:
    """Keys, rows as frames and in the clear, and what a training that nobody interrupts ends with."""
    plan, rows = planned(), rows_of(ROWS, COLUMNS)
    owner, trainer = parties(plan)
    frames = owner.encrypt(rows)
    trainer.receive(frames)
    list(trainer.run())
    assert trainer._state
    return owner.public_bytes(), frames, rows, trainer._packed(trainer._state), owner.weights(trainer.result())


@pytest.mark.parametrize(("place", "reached"), [("in the middle of a step", 3), ("while saving", 3)])
def test_a_killed_training_goes_on_to_the_same_ciphertexts(tmp_path: Path, place: str, reached: int) -> None:
    keys, frames, rows, expected, weights = whole_run()
    (tmp_path / "keys").write_bytes(keys)
    for i, frame in enumerate(frames):
        (tmp_path / f"rows{i}").write_bytes(frame)
    child = Path(__file__).parent / "training_child.py"
    ended = subprocess.run([sys.executable, child, tmp_path, place], timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    trainer = Trainer.resumed(planned(), Checkpoint(tmp_path / "saved"), allow_insecure=True)
    assert trainer
    assert (trainer.step, trainer.tag) == (reached, "owner's tag")
    assert list(trainer.run()) == list(range(reached + 1, STEPS + 1))
    assert trainer._state
    assert trainer._packed(trainer._state) == expected
    assert np.abs(weights - trajectory(planned().descent, rows)[-1]).max() < planned().error_estimate


@pytest.mark.parametrize("way", ["ckks, refreshed Nesterov", "paillier, refreshed"])
def test_a_training_that_lost_its_owner_in_a_round_goes_on_to_the_same_weights(tmp_path: Path, way: str) -> None:
    scheme, descent, columns = WAYS[way]
    plan = plan_training(descent, columns, scheme, row_bound=4.0, security_bits=0)
    rows = rows_of(descent.rows, columns)
    owner, trainer = parties(plan)
    trainer.receive(owner.encrypt(rows))
    answered: list[bytes] = []

    def answer(request: bytes) -> bytes:
        if len(answered) == 2:
            raise PeerLost("the owner is gone")
        answered.append(request)
        return owner._client.answer(request)

    with pytest.raises(PeerLost):
        list(trainer.run(LocalLink(answer), Checkpoint(tmp_path)))
    again = Trainer.resumed(plan, Checkpoint(tmp_path), allow_insecure=True)
    assert again
    assert 1 <= again.step == trainer.step < descent.steps
    list(again.run(owner.link()))
    error = np.abs(owner.weights(again.result()) - trajectory(plan.descent, rows)[-1]).max()
    assert error <= plan.error_estimate


def test_a_checkpoint_holds_ciphertexts_and_public_state_only(tmp_path: Path) -> None:
    rows = rows_of(ROWS, COLUMNS)
    owner, trainer = parties(planned())
    trainer.receive(owner.encrypt(rows), owner.tag(rows))
    for _ in trainer.run(checkpoint=Checkpoint(tmp_path)):
        kinds = {kind_of(path.read_bytes()) for path in tmp_path.glob("*.frame")}
        assert kinds == {Kind.TENSOR, Kind.PUBLIC_KEYS}
        manifest = json.loads((tmp_path / MANIFEST).read_bytes())
        assert set(manifest["public"]) == {"plan", "step", "tag"}
    assert Trainer.resumed(planned(), Checkpoint(tmp_path / "none"), allow_insecure=True) is None


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    owner, trainer = parties(planned())
    trainer.receive(owner.encrypt(rows_of(ROWS, COLUMNS)))
    next(iter(trainer.run(checkpoint=Checkpoint(tmp_path))))
    other = plan_training(Descent(ROWS, 3, rate=1.0), COLUMNS, row_bound=8.0, security_bits=0)
    with pytest.raises(KeyMismatch, match="another plan"):
        Trainer.resumed(other, Checkpoint(tmp_path), allow_insecure=True)
    public, frames = Checkpoint(tmp_path).load() or ({}, {})
    for changed_public, changed_frames, words in (
        ({**public, "step": 9}, frames, "step 9 of 5"),
        ({**public, "step": "1"}, frames, "not of a training"),
        ({**public, "more": 1}, frames, "not of a training"),
        (public, {**frames, "totals": frames["rows 0"]}, "different shapes"),
        (public, {**frames, "totals": frames["keys"]}, "expected one of"),
        (public, {name: frame for name, frame in frames.items() if name != "carrier"}, "not of a training"),
    ):
        Checkpoint(tmp_path).save(changed_public, changed_frames)
        with pytest.raises(MalformedFrame, match=words):
            Trainer.resumed(planned(), Checkpoint(tmp_path), allow_insecure=True)
