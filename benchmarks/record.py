"""What a benchmark leaves behind: one file, with the data, the machine and the commit that its numbers depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hepipe.study.measure import commit, machine


def write(name: str, data: Any, **content: Any) -> None:
    """results/bench/<name>.json."""
    out = Path("results/bench")
    out.mkdir(parents=True, exist_ok=True)
    record = {"data": data.sha256, "machine": machine(), "commit": commit(), **content}
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
