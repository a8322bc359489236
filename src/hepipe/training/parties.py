"""Outsourced training: the owner holds rows, labels and the only secret key; the trainer computes and sees nothing.

    owner = Owner(plan)
    trainer = Trainer(plan, owner.public_bytes())
    trainer.receive(owner.encrypt(rows))
    for step in trainer.run(owner.link()): ...
    weights = owner.weights(trainer.result())

The owner learns the weights, that is what it asked for, and in a refresh masked ones. The trainer learns what the plan
says: how many rows and columns, a power of two over their values, the step size; IND-CPA of the scheme hides the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from hepipe.errors import InsecureParameters, KeyMismatch, MalformedFrame, OutOfRange
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import Link, LocalLink
from hepipe.protocol.parties import Client
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, KeySet
from hepipe.schemes.registry import evaluator_of
from hepipe.schemes.wire import pack_tensor, unpack_keys, unpack_tensor
from hepipe.training.checkpoint import Checkpoint
from hepipe.training.descent import DOMAIN, State
from hepipe.training.plan import TrainingPlan
from hepipe.training.rehearsal import check_domain


class Owner:
    """Makes the keys and encrypts the rows; checks before it does that the descent stays in the polynomial's domain."""

    def __init__(self, plan: TrainingPlan, keys: KeySet | None = None) -> None:
        self._plan, self._client = plan, Client(plan, keys)

    @classmethod
    def load(cls, plan: TrainingPlan, path: str | os.PathLike[str], passphrase: str) -> Owner:
        """An owner with keys that ``save`` wrote; KeyMismatch if they were made for other parameters."""
        owner = cls.__new__(cls)
        owner._plan, owner._client = plan, Client.load(plan, path, passphrase)
        return owner

    def save(self, path: str | os.PathLike[str], passphrase: str) -> None:
        """Keep the keys for a resumed training, sealed with a passphrase."""
        self._client.save(path, passphrase)

    def public_bytes(self) -> bytes:
        """Parameters, public and evaluation keys as a frame."""
        return self._client.public_bytes()

    def encrypt(self, rows: FloatArray) -> list[bytes]:
        """Folded rows (training.whitening) as frames. OutOfRange if a step could leave the polynomial's domain."""
        planned = self._plan.descent.rows
        if len(rows) != planned:
            raise OutOfRange(f"{len(rows)} rows, the plan is for {planned}: plan with as many")
        check_domain(self._plan.descent, rows)
        return [self._client.pack(self._client.encrypt(values)) for values in self._plan.layout.arrange(rows)]

    def link(self) -> LocalLink:
        """By which a trainer in this process asks for rounds; its transcript counts every one."""
        return self._client.link()

    def weights(self, result: bytes) -> FloatArray:
        """The weights of the folded rows' columns, shape (columns,). Before publishing those of CKKS: SECURITY.md."""
        return DOMAIN * self._plan.layout.weights(self._client.decrypt(self._client.unpack(result)))

    def tag(self, rows: FloatArray) -> str:
        """A MAC of the rows under the secret key: by it the owner, and nobody else, knows its data again."""
        return self._client.tag(rows.tobytes())


class Trainer:
    """Runs the descent on ciphertexts; holds public keys only. Parameters of the tests need ``allow_insecure``."""

    def __init__(self, plan: TrainingPlan, public: bytes, *, allow_insecure: bool = False) -> None:
        bundle = unpack_keys(public, allow_insecure=allow_insecure)
        if bundle.parameters.insecure and not allow_insecure:
            raise InsecureParameters("the owner uses parameters made for tests: plan with secure ones")
        if bundle.parameters != plan.parameters:
            raise KeyMismatch(f"the keys are for {bundle.parameters}, the plan needs {plan.parameters}: make new keys")
        self._plan, self._bundle, self._evaluator = plan, bundle, evaluator_of(bundle)
        self._frames = {"keys": public}
        self._data: list[CipherTensor] = []
        self._state: State | None = None
        self._tag = ""

    @property
    def step(self) -> int:
        """Steps made."""
        return self._state.step if self._state else 0

    def receive(self, frames: list[bytes], tag: str = "") -> None:
        """The owner's rows, each of the shape, level and bound of the plan; ``tag`` is kept for the owner."""
        data, plan = [unpack_tensor(frame, self._bundle) for frame in frames], self._plan
        if [x.shape for x in data] != plan.shapes:
            raise MalformedFrame(f"rows of shapes {[x.shape for x in data]}, the plan has {plan.shapes}")
        for x in data:
            if (x.level, x.log_scale) != (plan.parameters.depth, plan.parameters.log_scale):
                raise MalformedFrame(f"rows at level {x.level}, log_scale {x.log_scale:.1f}: not freshly encrypted")
            if x.bound.max() > plan.profile.bound:
                raise MalformedFrame(f"rows up to {x.bound.max():g}, the plan is for {plan.profile.bound:g}")
        self._data, self._tag, self._state = data, tag, None
        self._frames |= {f"rows {i}": frame for i, frame in enumerate(frames)}

    def run(self, link: Link | None = None, checkpoint: Checkpoint | None = None) -> Iterator[int]:
        """Make the steps that are left, saving each before it is counted; yields the number made so far.

        May be left at any step and called again. ``link`` where the plan has rounds.
        """
        for state in self._plan.descent.run(self._linked(link), self._plan.layout, self._data, self._state):
            self._state = state
            if checkpoint:
                checkpoint.save(self._public(), self._frames | self._packed(state))
            yield state.step

    def result(self) -> bytes:
        """The encrypted weights as a frame for the owner, rerandomized."""
        if self._state is None:
            raise OutOfRange("no step was made: receive rows and run first")
        result = self._evaluator.rerandomize(self._state.weights)
        return pack_tensor(result, self._bundle)

    @classmethod
    def resumed(cls, plan: TrainingPlan, checkpoint: Checkpoint, *, allow_insecure: bool = False) -> Trainer | None:
        """The trainer of a checkpoint; None if there is none. KeyMismatch if it is of another plan.

        Everything in it is parsed as if a peer had sent it.
        """
        saved = checkpoint.load()
        if saved is None:
            return None
        public, frames = saved
        names = {"keys", "totals", "weights", "carrier", *(f"rows {i}" for i in range(len(plan.shapes)))}
        if set(public) != {"plan", "step", "tag"} or set(frames) != names or type(public["step"]) is not int:
            raise MalformedFrame("a checkpoint that is not of a training: remove the folder and restart")
        if public["plan"] != plan.digest():
            raise KeyMismatch("the checkpoint is of another plan: train as it was begun, or remove the folder")
        trainer = cls(plan, frames["keys"], allow_insecure=allow_insecure)
        trainer.receive([frames[f"rows {i}"] for i in range(len(plan.shapes))], str(public["tag"]))
        trainer._restore(int(public["step"]), frames)
        return trainer

    @property
    def tag(self) -> str:
        """What the owner gave with its rows."""
        return self._tag

    def _restore(self, step: int, frames: dict[str, bytes]) -> None:
        parts = {name: unpack_tensor(frames[name], self._bundle) for name in ("weights", "carrier", "totals")}
        if not 1 <= step <= self._plan.descent.steps:
            raise MalformedFrame(f"a checkpoint of step {step} of {self._plan.descent.steps}")
        if len({x.shape for x in parts.values()}) != 1:
            raise MalformedFrame("a checkpoint whose weights, carrier and totals have different shapes")
        self._state = State(step, **parts)

    def _linked(self, link: Link | None) -> Evaluator:
        return Interactive(self._evaluator, link, self._bundle) if link else self._evaluator

    def _public(self) -> dict[str, object]:
        return {"plan": self._plan.digest(), "step": self.step, "tag": self._tag}

    def _packed(self, state: State) -> dict[str, bytes]:
        parts = {"weights": state.weights, "carrier": state.carrier, "totals": state.totals}
        return {name: pack_tensor(x, self._bundle) for name, x in parts.items()}
