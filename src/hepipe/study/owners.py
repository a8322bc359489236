"""The tables and the figure of a fit by several parties: its weights, its cost, who learned what, what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from hepipe.errors import HepipeError
from hepipe.models.schema import Column
from hepipe.protocol.parties import Client, Server
from hepipe.study.captions import number
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import Picture, dots, key, log_axis, room, title
from hepipe.study.plan import plan
from hepipe.study.splits import Split
from hepipe.training.aggregate import Aggregator, DataOwner, KeyHolder
from hepipe.training.agreement import Agreement, Solution
from hepipe.training.federated import FederatedRidge
from hepipe.training.labels import labels_only
from hepipe.training.masked import MaskedKeyHolder, MaskingAggregator

Fits = Mapping[str, FederatedRidge]
_SHADES = ("#c1440e", "#007a5a", "#8a4f9e")


def assign_owners(rows: int, owners: tuple[str, ...], seed: int = 0) -> npt.NDArray[np.str_]:
    """An owner for each row, at random and of about equal shares."""
    return np.random.default_rng(seed).permutation(np.resize(np.array(owners), rows))


def weights_table(fits: Fits, estimator: BaseEstimator, parts: Split, groups: npt.NDArray[np.str_]) -> pd.DataFrame:
    """Coefficients, intercept and R2 on the test rows of each fit of the training rows.

    *difference* is the largest of any weight from ``estimator`` on the pooled rows. An owner's own fit, on its rows
    alone, stands below: what it could have had without the others.
    """
    X, y = parts.X_train, parts.y_train
    pooled = clone(estimator).fit(X, y)
    alone = {f"{name} alone": clone(estimator).fit(X[groups == name], y[groups == name]) for name in np.unique(groups)}
    rows = []
    for name, fitted in {"pooled, scikit-learn": pooled, **fits, **alone}.items():
        weights = np.append(fitted.coef_, fitted.intercept_)
        apart = float(np.abs(weights - np.append(pooled.coef_, pooled.intercept_)).max())
        score = float(r2_score(parts.y_test, fitted.predict(parts.X_test)))
        named = dict(zip([*X.columns, "intercept"], weights.tolist(), strict=True))
        rows.append({"fit": name, **named, "difference": apart, "metric R2": score})
    return pd.DataFrame(rows)


def labels_table(X: pd.DataFrame, y: pd.Series, target: Column, schemes: str, security_bits: int = 128) -> pd.DataFrame:
    """One party has the rows X, another the labels y: the closed form on encrypted labels, by scheme.

    *difference* is the largest of any weight from LinearRegression, *promised* what the plan allowed.
    """
    model, clear = labels_only(X, target), LinearRegression().fit(X, y)
    rows = []
    for scheme in schemes.split(","):
        planned = plan(model, scheme, samples=len(X), security_bits=security_bits)
        client = Client(planned)
        server = Server(model, client.public(), allow_insecure=planned.parameters.insecure)
        start = time.perf_counter()
        weights = client.head(client.decrypt(server.evaluate(client.encrypt(y.to_frame()))))
        rows.append(
            {
                "scheme": scheme,
                "difference": float(np.abs(weights - np.append(clear.coef_, clear.intercept_)).max()),
                "promised": planned.error_bound,
                "ms": 1e3 * (time.perf_counter() - start),
                "rounds": planned.rounds,
                "KiB up": planned.bytes_up / 2**10,
                "KiB down": planned.bytes_down / 2**10,
                "key MiB": planned.key_bytes / 2**20,
                "trainer learns": "nothing",
                "owner of labels learns": "the weights",
            }
        )
    return pd.DataFrame(rows)


def agreement_table(fits: Fits) -> pd.DataFrame:
    """What was published before, and what follows from it: numbers that travel, lanes, ciphertexts."""
    rows = []
    for name, fitted in fits.items():
        agreed, count = fitted.agreement_, len(fitted.agreement_.entries[0])
        rows.append(
            {
                "fit": name,
                "owners": len(agreed.owners),
                "most rows an owner": agreed.rows,
                "least rows in all": agreed.min_rows,
                "sums an owner sends": count,
                "bits a sum": agreed.parameters.lane_bits,
                "sums a ciphertext": agreed.parameters.lanes,
                "ciphertexts": -(-count // agreed.parameters.lanes),
                "security bits": "insecure" if agreed.insecure else agreed.security_bits,
            }
        )
    return pd.DataFrame(rows)


def party_table(fits: Fits) -> pd.DataFrame:
    """Milliseconds of work and KiB sent, by party; the time of ``fits`` itself, measured once."""
    steps = [{"fit": name, **vars(step)} for name, fitted in fits.items() for step in fitted.steps_]
    frame = pd.DataFrame(steps).groupby(["fit", "party"], sort=False).agg(
        ms=("milliseconds", "sum"), messages=("size", lambda sizes: int((sizes > 0).sum())), sent=("size", "sum")
    )  # fmt: skip
    frame["KiB sent"] = frame.pop("sent") / 2**10
    return frame.reset_index()


def learned_table(fits: Fits) -> pd.DataFrame:
    """What each party decrypted, and what it learned beyond what was published."""
    rows = []
    for name, fitted in fits.items():
        size, sums = fitted.agreement_.features + 1, len(fitted.agreement_.entries[0])
        aggregator, holder = (MaskingAggregator, MaskedKeyHolder) if fitted.masked else (Aggregator, KeyHolder)
        seen = f"{size * (size + 1)} uniform residues" if fitted.masked else f"{sums} sums over all rows"
        for party, decrypted, kind in (
            ("each owner", "nothing", DataOwner),
            ("aggregator", "nothing", aggregator),
            ("key holder", seen, holder),
        ):
            rows.append({"fit": name, "party": party, "decrypts": decrypted, "learns": kind.learns})
    return pd.DataFrame(rows)


def refusals(dataset: Dataset, security_bits: int = 128) -> pd.DataFrame:
    """Every case that must be refused, tried on real parties: what was asked for, and the error that answered."""
    agreed = Agreement(dataset.schema, dataset.target, ("a", "b", "c"), 512, security_bits=security_bits)
    holder = KeyHolder(agreed)
    least = agreed.min_rows
    cases: dict[str, Callable[[], Any]] = {
        "two owners": lambda: replace(agreed, owners=("a", "b")),
        f"{least - 1} rows in all, for {agreed.features} columns": lambda: _run(dataset, agreed, holder, least - 1),
        "an owner that sends twice": lambda: _run(dataset, agreed, holder, 60, ("a", "b", "b", "c")),
        "an owner that does not come": lambda: _run(dataset, agreed, holder, 60, ("a", "b")),
        "an owner with another schema": lambda: _run(dataset, agreed, holder, 60, other=replace(agreed, alpha=1.0)),
        "a value outside its range": lambda: agreed.integers(dataset.X[:1] + 1000, dataset.y[:1]),
        "a second sum": lambda: (_run(dataset, agreed, holder, 60), _run(dataset, agreed, holder, 60)),
    }
    return pd.DataFrame([{"case": case, **_refusal(ask)} for case, ask in cases.items()])


def figure_parties(fits: Fits, dataset: Dataset | None) -> Picture:
    """Milliseconds and KiB by party, the fits side by side."""
    table = party_table(fits)
    owners = next(iter(fits.values())).agreement_.owners
    parties = [*owners, "aggregator", "key holder"]
    picture = Picture(10, 1.6 + 0.5 * len(parties))
    colours = dict(zip(fits, _SHADES, strict=False))
    for axes, column, label in zip(
        picture.subplots(1, 2, sharey=True), ("ms", "KiB sent"), ("ms of work (log)", "KiB sent (log)"), strict=True
    ):
        cells = table.set_index(["fit", "party"])[column]
        series = {name: [cells.get((name, party)) or None for party in parties] for name in fits}
        dots(axes, parties, series, colours)
        log_axis(axes, "x", label)
        room(axes, [value for values in series.values() for value in values if value])
    key(picture, colours)
    weak = any(fitted.agreement_.insecure for fitted in fits.values())
    caveats = ["SYNTHETIC data"] * bool(dataset and dataset.synthetic) + ["INSECURE test keys"] * weak
    title(picture, "Work and bytes by party", *caveats)
    return picture


def _run(
    dataset: Dataset, agreed: Agreement, holder: KeyHolder, rows: int, senders: tuple[str, ...] = ("a", "b", "c"),
    other: Agreement | None = None,
) -> Solution:  # fmt: skip
    """The whole protocol for the first ``rows`` rows; the last owner holds to ``other``, where there is one."""
    public = holder.public()
    aggregator = Aggregator(agreed, public)
    for place, name in enumerate(senders):
        own = slice(place * rows // len(senders), (place + 1) * rows // len(senders))
        held = other if other and place == len(senders) - 1 else agreed
        aggregator.receive(DataOwner(name, held, public).contribute(dataset.X[own], dataset.y[own]))
    return holder.solve(aggregator.release())


def _refusal(ask: Callable[[], Any]) -> dict[str, str]:
    try:
        ask()
    except HepipeError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": "NOT REFUSED", "message": ""}


def findings(weights: pd.DataFrame, fits: Fits) -> list[str]:
    """Two sentences on a fit by several owners, every number computed from ``weights_table`` and ``fits``."""
    by = weights.set_index("fit").astype(float)
    common, alone = by.loc[list(fits)], by[by.index.str.endswith(" alone")]
    parts = []
    for name, fitted in fits.items():
        work, sent = (sum(each) for each in zip(*((s.milliseconds, s.size) for s in fitted.steps_), strict=True))
        parts.append(f"{name} {number(work)} ms of work and {number(sent / 2**10)} KiB in all")
    score = alone["metric R2"]
    return [
        f"Every weight of the common model is within {common['difference'].max():.1e} of scikit-learn's on the pooled "
        f"rows, that of a company alone within {number(alone['difference'].max())}; R2 on the test rows is "
        f"{common['metric R2'].min():.4f}, alone {score.min():.4f} to {score.max():.4f}.",
        f"The fit takes {'; '.join(parts)}.",
    ]
