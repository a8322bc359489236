"""What a client reads of a model that is served elsewhere: its profile and a plan, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepipe.errors import InsecureParameters, MalformedFrame, Unsupported
from hepipe.models.codec import Inline, check_profile, decode, digest_of
from hepipe.models.profile import Profile
from hepipe.protocol.parties import Client, Evaluates
from hepipe.schemes.wire import parameters_from
from hepipe.study.progress import steps


@dataclass(frozen=True, eq=False)
class RemotePlan:
    """What a server publishes of a plan: see study.plan.Plan. ``digest`` names the model it is for."""

    parameters: Any
    profile: Profile
    samples: int
    policy: str
    levels: int
    rounds: int
    reveals: str
    error_bound: float
    bytes_up: int
    bytes_down: int
    key_bytes: int
    security_bits: int
    digest: str
    version: str


def read_plan(published: dict[str, Any], scheme: str, policy: str, allow_insecure: bool) -> RemotePlan:
    """The plan for a scheme of what ``Served.published`` says.

    Unsupported for a scheme that is not on offer or a policy other than agreed to, InsecureParameters for parameters of
    the tests, MalformedFrame for anything that is no such document, or was altered on its way.
    """
    _check_digest(published)
    plans = published.get("plans")
    if not isinstance(plans, dict):
        raise MalformedFrame("the published profile has no plans")
    if scheme not in plans:
        raise Unsupported(f"the model is not offered on {scheme!r}: use one of {sorted(plans)}")
    try:
        profile = decode(Profile, published["profile"], Inline())
        check_profile(profile)
        fields = {name: value for name, value in plans[scheme].items() if name != "packing"}
        fields["parameters"] = parameters_from(scheme, dict(fields["parameters"]))
        names = {"profile": profile, "digest": published["digest"], "version": published["version"]}
        plan = RemotePlan(**fields, **names)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MalformedFrame(f"the published profile cannot be read: {error}") from error
    if (plan.parameters.insecure or not plan.parameters.security_bits) and not allow_insecure:
        raise InsecureParameters("the server plans with parameters made for tests: ask it for secure ones")
    if plan.policy != "polynomial" and plan.policy != policy:
        raise Unsupported(f"the plan's policy {plan.policy!r} reveals {plan.reveals}: agree with policy='client'")
    return plan


def _check_digest(published: dict[str, Any]) -> None:
    try:
        whole = published.get("sha256") == digest_of({name: published[name] for name in published if name != "sha256"})
    except RecursionError:
        whole = False
    if not whole:
        raise MalformedFrame("the published profile was altered on its way, or is none: ask for it again")


def predict_in_parts(server: Evaluates, most: int, client: Client, X: Any, progress: bool = False) -> npt.NDArray[Any]:
    """Predictions for any number of rows, at most ``most`` in one request."""
    rows = X if hasattr(X, "shape") else np.asarray(X)
    parts = [rows[start : start + most] for start in range(0, len(rows), most)]
    watched = steps(parts, "predict", "auto" if progress else "off", lambda part: f"{len(part)} rows")
    return np.concatenate([client.predict(server, part) for part in watched])
