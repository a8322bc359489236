"""Run by test_training.py as a process of its own: a training from files, killed with SIGKILL where it is told."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

from hepipe.training.checkpoint import Checkpoint
from hepipe.training.descent import Descent
from hepipe.training.parties import Trainer
from hepipe.training.plan import TrainingPlan, plan_training

ROWS, COLUMNS, STEPS = 60, 4, 5


@cache
def planned() -> TrainingPlan:
    """The same plan in both processes."""
    return plan_training(Descent(ROWS, STEPS, rate=1.0, momentum=True), COLUMNS, row_bound=8.0, security_bits=0)


def die(*_: Any) -> None:
    """At once: no handler runs, nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, place: str) -> None:
    trainer = Trainer(planned(), (folder / "keys").read_bytes(), allow_insecure=True)
    trainer.receive([path.read_bytes() for path in sorted(folder.glob("rows*"))], "owner's tag")
    for step in trainer.run(checkpoint=Checkpoint(folder / "saved")):
        if step == 3 and place == "in the middle of a step":
            trainer._evaluator._rotate = die
        if step == 3 and place == "while saving":
            Path.replace = die  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
