"""Bundles: what is saved comes back bit for bit, and nothing else is taken for a bundle."""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hepipe.errors import HepipeError, MalformedBundle, UnsupportedModel
from hepipe.models import bundle as bundles
from hepipe.models.bundle import ARRAYS, MANIFEST, Bundle, Settings, load, save
from hepipe.models.codec import Inline, check_profile, decode, encode
from hepipe.models.linear import LinearModel, linear_regression
from hepipe.models.logistic import clear_scores
from hepipe.models.profile import Profile
from hepipe.models.schema import Column, Schema
from served_models import FRAME, MAKERS, made, policy_of, schemes_of

SIDES = ("folder", "file.zip")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MAKERS)
def test_every_model_comes_back_with_the_same_scores_bit_for_bit(name: str, side: str, tmp_path: Path) -> None:
    policy = policy_of(name)
    settings_ = Settings(schemes_of(name), policy, 3, 10.5)
    digest = save(tmp_path / side, Bundle(made(name), name, "1.2", settings_))
    again = load(tmp_path / side)
    assert (again.name, again.version, again.settings, again.digest) == (name, "1.2", settings_, digest)
    assert type(again.model) is type(made(name))
    assert (again.model.name, again.model.reveals) == (made(name).name, made(name).reveals)
    selects = schemes_of(name) == ("paillier",)
    scores, expected = (clear_scores(model, FRAME, policy, selects=selects) for model in (again.model, made(name)))
    assert (scores == expected).all()
    assert (again.model.head(scores) == made(name).head(expected)).all()
    if hasattr(made(name), "exact"):
        assert (again.model.exact(FRAME) == made(name).exact(FRAME)).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_profile_comes_back_from_json_text(name: str) -> None:
    profile = made(name).profile
    text = json.dumps(encode(profile, Inline()), allow_nan=True)
    again = decode(Profile, json.loads(text), Inline())
    assert type(again) is type(profile)
    assert (again.prepare(FRAME) == profile.prepare(FRAME)).all()
    assert encode(again, Inline()) == json.loads(text)
    assert "NaN" not in text
    assert "Infinity" not in text


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), features=st.integers(1, 4), outputs=st.integers(1, 3))
def test_any_finite_linear_model_keeps_every_bit(
    data: st.DataObject, features: int, outputs: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = st.floats(-1e6, 1e6)
    weights = data.draw(hnp.arrays(np.float64, (features, outputs), elements=numbers))
    intercept = data.draw(hnp.arrays(np.float64, (outputs,), elements=numbers))
    lows = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=features, max_size=features))
    columns = tuple(Column(f"c{i}", low, low + 1 + i, unit="a µ") for i, low in enumerate(lows))
    model = LinearModel(Profile.of("regression", Schema(columns), outputs), weights, intercept)
    path = tmp_path_factory.mktemp("bundle") / "m.zip"
    save(path, Bundle(model, "any"))
    again = load(path).model
    assert again.weights.tobytes() == np.ascontiguousarray(weights).tobytes()
    assert again.intercept.tobytes() == intercept.tobytes()
    assert again.profile.schema == model.profile.schema


def test_a_zip_and_a_folder_hold_the_same_bytes_each_time(tmp_path: Path) -> None:
    digests = {save(tmp_path / name, Bundle(made("tree"), "tree")) for name in ("a", "b", "c.zip", "d.zip")}
    assert len(digests) == 1
    assert (tmp_path / "c.zip").read_bytes() == (tmp_path / "d.zip").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [ARRAYS, MANIFEST]


def test_arrays_are_read_by_numpy_without_pickle(tmp_path: Path) -> None:
    save(tmp_path / "m", Bundle(made("linear"), "linear"))
    with np.load(tmp_path / "m" / ARRAYS, allow_pickle=False) as arrays:
        assert any((arrays[name] == made("linear").weights).all() for name in arrays.files if arrays[name].ndim == 2)


# --- refused at saving ------------------------------------------------------------------------------------------------


class Own(LinearModel):
    """A subclass may do anything in ``forward``."""


def test_what_no_bundle_holds_is_not_saved(tmp_path: Path) -> None:
    linear = made("linear")
    for model in (Own(linear.profile, linear.weights, linear.intercept), object(), linear.profile):
        with pytest.raises(UnsupportedModel, match="cannot be saved"):
            save(tmp_path / "m", Bundle(model, "m"))
    for bad in (math.nan, math.inf):
        with pytest.raises(UnsupportedModel, match="not all finite"):
            save(tmp_path / "m", Bundle(LinearModel(linear.profile, linear.weights * bad, linear.intercept), "m"))
    for name in ("", "../m", "a b", "x" * 65, ".m"):
        with pytest.raises(UnsupportedModel, match="letters, digits"):
            save(tmp_path / "m", Bundle(linear, name))
    assert not (tmp_path / "m").exists()


def test_a_bundle_is_never_overwritten(tmp_path: Path) -> None:
    for side in SIDES:
        save(tmp_path / side, Bundle(made("linear"), "linear"))
        with pytest.raises(FileExistsError, match="never overwritten"):
            save(tmp_path / side, Bundle(made("tree"), "tree"))
        assert load(tmp_path / side).name == "linear"


@pytest.mark.parametrize(
    "fields",
    [{"samples": 0}, {"samples": True}, {"schemes": ()}, {"schemes": (1,)}, {"precision_bits": math.nan},
     {"policy": 3}, {"precision_bits": "20"}, {"security_bits": 128.0}],
)  # fmt: skip
def test_settings_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        Settings(**fields)


# --- refused at loading -----------------------------------------------------------------------------------------------


def written(tmp_path: Path, name: str = "linear") -> Path:
    save(tmp_path / "m", Bundle(made(name), name, settings=Settings(policy=policy_of(name))))
    return tmp_path / "m"


def changed(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_arrays(folder: Path, arrays: bytes) -> None:
    """Other arrays under a digest that is right."""
    (folder / ARRAYS).write_bytes(arrays)
    changed(folder, lambda manifest: manifest.update(arrays_sha256=hashlib.sha256(arrays).hexdigest()))


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


CHANGES = {
    "other format": lambda m: m.update(format="pickle"),
    "newer format": lambda m: m.update(format_version=2),
    "a version that is true": lambda m: m.update(format_version=True),
    "one more field": lambda m: m.update(extra=1),
    "one field less": lambda m: m.pop("hepipe"),
    "name with a path": lambda m: m.update(name="../../etc"),
    "name no text": lambda m: m.update(name=1),
    "unknown class": lambda m: m["model"].update({"class": "subprocess.Popen"}),
    "class no text": lambda m: m["model"].update({"class": ["LinearModel"]}),
    "a profile for a model": lambda m: m.update(model=m["model"]["profile"]),
    "wrong class below": lambda m: m["model"].update(profile=m["model"]["profile"]["schema"]),
    "unknown field": lambda m: m["model"].update(forward="x"),
    "missing field": lambda m: m["model"].pop("intercept"),
    "array by number": lambda m: m["model"].update(weights={"array": 0}),
    "array of nothing": lambda m: m["model"].update(weights={"array": "a99"}),
    "array twice": lambda m: m["model"].update(weights=m["model"]["intercept"]),
    "array left over": lambda m: m["model"]["profile"].update(fill=None, half=m["model"]["profile"]["centre"]),
    "number for an array": lambda m: m["model"].update(weights=1.0),
    "number for a name": lambda m: m["model"].update(name=1),
    "bool for a number": lambda m: m["model"]["profile"].update(outputs=True),
    "text for a number": lambda m: m["model"]["profile"]["schema"]["columns"][0].update(low="0"),
    "NaN for a number": lambda m: m["model"]["profile"]["schema"]["columns"][0].update(low=math.nan),
    "huge integer": lambda m: m["model"]["profile"]["schema"]["columns"][0].update(low=10**400),
    "infinite range": lambda m: m["model"]["profile"]["schema"]["columns"][0].update(high={"float": "inf"}),
    "empty range": lambda m: m["model"]["profile"]["schema"]["columns"][0].update(high=-1e9),
    "column too many": lambda m: m["model"]["profile"]["schema"]["columns"].append(
        m["model"]["profile"]["schema"]["columns"][0]),
    "columns no list": lambda m: m["model"]["profile"]["schema"].update(columns={}),
    "two outputs": lambda m: m["model"]["profile"].update(outputs=2),
    "no settings": lambda m: m.update(settings=None),
    "settings of another": lambda m: m["settings"].update(shell="x"),
    "samples negative": lambda m: m["settings"].update(samples=-1),
    "more outputs than a frame has": lambda m: m["model"]["profile"].update(outputs=10**12),
    "precision no double has": lambda m: m["settings"].update(precision_bits=10**400),
    "digest of other arrays": lambda m: m.update(arrays_sha256="0" * 64),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_manifest_is_refused(change: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    changed(folder, CHANGES[change])
    with pytest.raises(MalformedBundle):
        load(folder)


PROFILES = {
    "clusters beyond a double": ("index", {"count": 10**400}),
    "outputs that no memory holds": ("linear", {"outputs": 10**12}),
    "a division by zero": ("linear", {"half": {"array": [0.0, 1.0, 1.0]}}),
    "more bits than memory": ("bits", {"steps": {"class": "Steps", "low": {"array": [0.0] * 3},
        "step": {"array": [1.0] * 3}, "bits": {"array": [10**12] * 3}}}),
}  # fmt: skip


@pytest.mark.parametrize("change", PROFILES)
def test_a_published_profile_that_no_client_could_use_is_refused(change: str) -> None:
    name, fields = PROFILES[change]
    node = json.loads(json.dumps(encode(made(name).profile, Inline()))) | fields
    with pytest.raises(MalformedBundle):
        check_profile(decode(Profile, node, Inline()))


MISSHAPEN = {
    "trees without a level": ("tree", lambda m: m["trees"].update(columns=m["trees"]["columns"][:1])),
    "an unknown activation": ("square", lambda m: m["layers"][0]["activation"].update(series=[], name="exec")),
    "a column that is not there": ("powers", lambda m: m["products"][0].update(squared=[99])),
    "powers that nothing makes": ("powers", lambda m: m.update(products=[])),
    "powers of what comes later": ("powers", lambda m: m["products"][0].update(left_degree=0, right_degree=2)),
    "a polynomial of nothing": ("sigmoid", lambda m: m["sigmoid"].update(coefficients=[])),
}


@pytest.mark.parametrize("case", MISSHAPEN)
def test_a_model_of_another_shape_is_refused(case: str, tmp_path: Path) -> None:
    name, change = MISSHAPEN[case]
    folder = written(tmp_path, name)
    changed(folder, lambda manifest: change(manifest["model"]))
    with pytest.raises(MalformedBundle):
        load(folder)


def object_array() -> bytes:
    out = io.BytesIO()
    np.savez(out, a0=np.array([{}], dtype=object))
    return out.getvalue()


def with_header(header: bytes, body: bytes = bytes(8)) -> bytes:
    """An array with a header of one's own."""
    padded = header.ljust(118)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        content = b"\x93NUMPY\1\0" + len(padded).to_bytes(2, "little") + padded + body
        archive.writestr(zipfile.ZipInfo("a0.npy"), content)
    return out.getvalue()


def packed(method: int) -> bytes:
    """An array in a zip that is packed in a way of its own, and damaged."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a0.npy", bytes(4000))
    data = bytearray(out.getvalue())
    data[40:50] = bytes(10)
    return bytes(data)


def lying_header() -> bytes:
    """An array that claims a terabyte."""
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(body, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37,)})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a0.npy", body.getvalue())
    return out.getvalue()


def bomb() -> bytes:
    """Zeros, a thousand times as many as the bytes they came in."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a0.npy", bytes(bundles.MAX_ARRAYS + 1))
    return out.getvalue()


@pytest.mark.parametrize(
    "arrays",
    [b"", b"PK", pickle.dumps({}), npz(), npz(a0=np.zeros(3, np.float32)), npz(a0=np.zeros((1, 1, 1))),
     npz(a0=np.array(["x"])), object_array(), lying_header(), bomb(), with_header(b"{'descr': ("),
     with_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }\n"), packed(zipfile.ZIP_DEFLATED),
     packed(zipfile.ZIP_BZIP2), packed(zipfile.ZIP_LZMA)],
    ids=["empty", "short", "pickle", "none", "float32", "three dimensions", "text", "objects", "lying", "bomb",
         "open header", "negative shape", "damaged deflate", "bzip2", "damaged lzma"],
)  # fmt: skip
def test_arrays_that_are_none_are_refused(arrays: bytes, tmp_path: Path) -> None:
    folder = written(tmp_path)
    with_arrays(folder, arrays)
    with pytest.raises(MalformedBundle):
        load(folder)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
    folder = written(tmp_path)
    with np.load(folder / ARRAYS) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    kept["a1"] = kept["a1"] * bad
    with_arrays(folder, npz(**kept))
    with pytest.raises(MalformedBundle, match="not finite"):
        load(folder)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.zip").write_bytes(pickle.dumps(made))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr(MANIFEST, "{}")
    for name in ("nothing", "empty", "m.zip", "two.zip"):
        with pytest.raises(MalformedBundle):
            load(tmp_path / name)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_changes_nothing_that_counts(
    place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "m.zip"
    save(path, Bundle(linear_regression([1.5, -2.0], 3.0, Schema.unknown(2, 4.0)), "m"))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(bytes(data))
    try:
        again = load(path)
    except HepipeError:
        return
    assert isinstance(again.model, LinearModel)
    assert np.isfinite(again.model.weights).all()
