"""Faults, injected into a real server process: each module enters its own into the catalogue."""

from faults import disk, lines, processes, requests
from faults.catalogue import FAULTS, judged

__all__ = ["FAULTS", "disk", "judged", "lines", "processes", "requests"]
