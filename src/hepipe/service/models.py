"""The models that are served: bundles of a folder, planned when they are loaded, replaced all at once on reload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepipe.errors import HepipeError, MalformedBundle, MalformedFrame
from hepipe.models.bundle import Bundle, read, unpack
from hepipe.models.codec import Inline, digest_of, encode
from hepipe.schemes.frames import Frame
from hepipe.schemes.wire import parameter_fields
from hepipe.service.problems import Refused
from hepipe.study.plan import Plan, plan

RESERVE_BYTES = 1 << 16
"""For the envelope around frames."""


@dataclass(frozen=True, eq=False)
class Served:
    """One version of one model: its bundle as bytes, for the workers, and a plan for each scheme on offer."""

    bundle: Bundle
    data: bytes
    plans: dict[str, Plan]

    @classmethod
    def of(cls, data: bytes) -> Served:
        """From the bytes of a bundle; MalformedBundle, or Unsupported for a scheme that cannot evaluate it."""
        bundle = unpack(data)
        given = bundle.settings
        plans = {
            scheme: plan(
                bundle.model, scheme, given.samples, given.policy,
                precision_bits=given.precision_bits, security_bits=given.security_bits,
            )
            for scheme in given.schemes
        }  # fmt: skip
        return cls(bundle, data, plans)

    def planned(self, head: Frame) -> Plan:
        """The plan that a tensor's header fits; Refused or MalformedFrame where none does."""
        planned = self.plans.get(head.scheme)
        if planned is None:
            raise Refused("refused", f"this model is not offered on {head.scheme}: use one of {sorted(self.plans)}")
        if not 1 <= head.samples <= planned.samples:
            raise Refused("refused", f"{head.samples} rows, at most {planned.samples} at once: split the request")
        if head.level != planned.parameters.depth:
            raise MalformedFrame(f"a tensor at level {head.level}, a fresh one has {planned.parameters.depth}")
        return planned

    @property
    def insecure(self) -> bool:
        """Whether a plan has parameters of the tests, or none."""
        return any(each.security_bits == 0 for each in self.plans.values())

    @property
    def request_bytes(self) -> int:
        """The largest request that a plan allows."""
        return max(each.bytes_up for each in self.plans.values()) + RESERVE_BYTES

    @property
    def key_bytes(self) -> int:
        """The largest upload of keys that a plan allows, a proof included."""
        return max(each.key_bytes for each in self.plans.values()) + RESERVE_BYTES

    def published(self) -> dict[str, Any]:
        """The profile that clients get: everything of the model that is public, and a digest of it.

        A client scales its rows by what it reads here, so one altered digit would be a wrong number.
        """
        profile = self.bundle.model.profile
        fields = {
            "name": self.bundle.name,
            "version": self.bundle.version,
            "digest": self.bundle.digest,
            "profile": encode(profile, Inline()),
            "plans": {scheme: _published(each) for scheme, each in self.plans.items()},
        }
        return fields | {"sha256": digest_of(fields)}


def _published(each: Plan) -> dict[str, Any]:
    names = ("policy", "samples", "levels", "rounds", "reveals", "error_bound", "bytes_up", "bytes_down", "key_bytes")
    fields = {name: getattr(each, name) for name in names}
    packing = {"rows_per_ciphertext": each.parameters.slots, "layout": "one column a ciphertext, rows in its slots"}
    fields |= {"parameters": parameter_fields(each.parameters), "security_bits": each.security_bits}
    return fields | {"packing": packing}


class Repository:
    """The bundles of a folder, by name and version. Requests hold the ``Served`` they began with over a reload."""

    def __init__(self, folder: Path, allow_insecure: bool = False) -> None:
        self._folder, self._allow_insecure = folder, allow_insecure
        self._models: dict[str, dict[str, Served]] = {}

    def reload(self) -> None:
        """Read the folder again; if a bundle is bad everything stays as it was, and the error names it."""
        if not self._folder.is_dir():
            raise MalformedBundle(f"{self._folder}: no folder of bundles; write one with: hepipe export MODEL OUT")
        found: dict[str, dict[str, Served]] = {}
        known = {each.data: each for versions in self._models.values() for each in versions.values()}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(".") or not (path.is_dir() or path.suffix == ".zip"):
                continue
            try:
                data = read(path)
                served = known.get(data) or Served.of(data)
            except HepipeError as error:
                raise MalformedBundle(f"{path.name}: {error}") from error
            self._add(found, path, served)
        if not found:
            raise MalformedBundle(f"no bundle in {self._folder}: hepipe export MODEL {self._folder}/NAME.zip makes one")
        self._models = found

    def _add(self, found: dict[str, dict[str, Served]], path: Path, served: Served) -> None:
        versions = found.setdefault(served.bundle.name, {})
        if served.bundle.version in versions:
            raise MalformedBundle(f"{path.name}: {served.bundle.name} {served.bundle.version} is there twice")
        if served.insecure and not self._allow_insecure:
            raise MalformedBundle(f"{path.name} is planned without security, which is for tests: export it again")
        versions[served.bundle.version] = served

    def names(self) -> dict[str, list[str]]:
        """The versions of every model, the one served by default last."""
        return {name: sorted(versions, key=version_order) for name, versions in self._models.items()}

    def get(self, name: str, version: str | None = None) -> Served:
        """A model, its latest version where none is named; Refused (404)."""
        versions = self._models.get(name, {})
        chosen = max(versions, key=version_order, default=None) if version is None else version
        if chosen is None or chosen not in versions:
            raise Refused("unknown", f"no model {name!r}{'' if version is None else f', version {version!r}'} is here")
        return versions[chosen]

    @property
    def request_bytes(self) -> int:
        """The largest request that any model allows."""
        return max(each.request_bytes for versions in self._models.values() for each in versions.values())

    @property
    def key_bytes(self) -> int:
        """The largest upload of keys that any model allows."""
        return max(each.key_bytes for versions in self._models.values() for each in versions.values())


def version_order(version: str) -> tuple[tuple[int, str], ...]:
    """Numbers in a version compare as numbers: 10 comes after 9."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in version.split("."))
