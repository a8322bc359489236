"""Every figure draws, marks what must not be quoted, and keeps its labels inside the picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from hepipe.study import figures
from hepipe.study.compare import Comparison
from hepipe.study.datasets import Dataset
from hepipe.study.drawing import COLOURS, OTHER_COLOURS, Picture, colour, short
from hepipe.study.measure import PHASES, ErrorBudget, Measurement, Timing

Draw = Callable[[Comparison, Dataset | None], Picture]
OF_COMPARISONS = [figures.figure_phases, figures.figure_bytes, figures.figure_precision, figures.figure_network]
MODEL = "logistic regression, sigmoid of degree 3"


@pytest.fixture(autouse=True)
def _warnings_fail() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests left, collected while a figure draws
        yield


def measured(scheme: str, cost: float, insecure: bool = False) -> Measurement:
    timing = Timing(1, {phase: [cost, 1.1 * cost, 0.9 * cost] for phase in PHASES})
    return Measurement(
        scheme=scheme, policy="polynomial", security_bits=128 * (scheme != "clear"), insecure=insecure,
        reveals="scores", levels=1, rounds=2 * (scheme == "paillier"), parameters={}, metric_clear=0.85,
        metric_encrypted=0.85, agreement=1.0, disagreements=(0, 0), p_value=1.0,
        errors=ErrorBudget(0.03, 4e-7 * (scheme != "clear"), 9e-7), keygen_ms=1.0, offline_ms=0.0, one=timing,
        batch=replace(timing, samples=64), bytes_up=10_000, bytes_down=2000, one_bytes=(2048, 1024), key_bytes=300,
        slots=64,
    )  # fmt: skip


def compared(insecure: bool = False) -> Comparison:
    costs = {"clear": 0.001, "paillier": 40.0, "ckks": 32.0}
    items = [measured(name, cost, insecure and name != "clear") for name, cost in costs.items()]
    return Comparison(MODEL, "accuracy", 64, items)


def dataset(synthetic: bool) -> Dataset:
    return Dataset("chd", "somewhere", synthetic, "0" * 64, pd.DataFrame(), pd.Series(), None, None)  # type: ignore[arg-type]


def texts(picture: Picture) -> list[Text]:
    shown = [
        item for item in picture.findobj(Text) if isinstance(item, Text) and item.get_text() and item.get_visible()
    ]
    return shown


def rendered(picture: Picture) -> RendererBase:
    """The renderer after drawing, which knows where every label lies."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    return canvas.get_renderer()


def title(picture: Picture) -> str:
    return picture.get_suptitle()


def prices() -> pd.DataFrame:
    rows = [
        {"scheme": scheme, "operation": name, "filled": filled, "ms per value": cost, "security bits": 128}
        for scheme, cost in (("paillier", 30.0), ("ckks", 0.2))
        for name in ("encrypt", "multiply two ciphertexts")
        for filled in (False, True)
    ]
    return pd.DataFrame(rows)


def curve() -> pd.DataFrame:
    rows = [
        {"scheme": scheme, "security bits": 128, "slots": slots, "values": n, "ms per value": 40 / min(n, slots)}
        for scheme, slots in (("paillier", 64), ("ckks", 2048))
        for n in (1, 16, slots, 4 * slots)
    ]
    return pd.DataFrame(rows)


def gaps() -> pd.DataFrame:
    heads = [(model, metric) for model in ("logistic", "square", "ReLU") for metric in ("accuracy", "AUC")]
    rows = [{"model": model, "metric": metric} for model, metric in heads]
    return pd.DataFrame(rows).assign(**{"minus logistic": [0, 0, 0.001, -0.002, 0.1, 0.2], "standard error": 0.01})


@pytest.mark.parametrize("draw", OF_COMPARISONS)
def test_a_figure_is_a_png_that_a_notebook_shows(draw: Draw) -> None:
    picture = draw(compared(), dataset(synthetic=False))
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert MODEL in title(picture)
    assert "SYNTHETIC" not in title(picture)
    assert "INSECURE" not in title(picture)


@pytest.mark.parametrize("draw", OF_COMPARISONS)
def test_generated_data_and_test_keys_stand_in_the_title(draw: Draw) -> None:
    assert "SYNTHETIC DATA" in title(draw(compared(), dataset(synthetic=True)))
    assert "INSECURE TEST KEYS" in title(draw(compared(insecure=True), None))


@pytest.mark.parametrize("draw", OF_COMPARISONS)
@pytest.mark.parametrize("scheme", ["clear", "ckks"])
def test_a_figure_of_a_single_scheme_draws(draw: Draw, scheme: str) -> None:
    alone = replace(compared(), measurements=[item for item in compared().measurements if item.scheme == scheme])
    assert draw(alone, None).png()


def test_a_figure_is_drawn_again_only_after_a_change() -> None:
    picture = figures.figure_bytes(compared(), None)
    first = picture.png()
    assert picture.png() is first
    picture.axes[0].set_title("changed")
    assert picture.png() != first


def drawn() -> list[Picture]:
    pictures = [draw(compared(insecure=True), dataset(synthetic=True)) for draw in OF_COMPARISONS]
    marks = {"the one system": 0.70, "the other, much longer named system": 0.71}
    return [
        *pictures,
        figures.figure_primitives(prices()),
        figures.figure_slots(curve()),
        figures.figure_uncertainty(np.linspace(0.6, 0.73, 50), marks, "accuracy", "50 draws", None),
        figures.figure_gaps(gaps(), dataset(synthetic=True)),
    ]


def test_no_label_is_cut_off() -> None:
    for picture in drawn():
        renderer, (width, height) = rendered(picture), picture.get_size_inches() * picture.dpi
        # The locator makes ticks beyond the ends of an axis, which are not drawn.
        ticks = [label for axes in picture.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
        for item in texts(picture):
            box = item.get_window_extent(renderer)
            inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
            assert inside or item in ticks, item


def test_labels_at_the_ends_of_lines_do_not_meet() -> None:
    picture = figures.figure_network(compared(), None)
    renderer = rendered(picture)
    boxes = [item.get_window_extent(renderer) for item in texts(picture) if item.get_text().endswith("rounds")]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_one_palette_whose_colours_differ_in_grey() -> None:
    grey = sorted(float(np.dot(to_rgb(shade), (0.299, 0.587, 0.114))) for shade in COLOURS.values())
    assert len(set(COLOURS.values())) == 3
    assert min(np.diff(grey)) > 0.02
    assert colour("ckks") == COLOURS["ckks"]
    assert colour("bfv", ["ckks", "tfhe", "bfv"]) == OTHER_COLOURS[1]
    assert colour("bfv") == OTHER_COLOURS[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, ""), (1e-5, "$10^{-5}$"), (2e-5, r"$2\cdot10^{-5}$"), (0.0123, "0.0123"), (5, "5"), (1234, "1,230")),
        *((56_000, "56k"), (2.5e6, "2.5M")),
    ],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_gaps_leave_out_the_baseline_and_keep_zero_in_sight() -> None:
    picture = figures.figure_gaps(gaps(), None)
    left, right = picture.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["square", "ReLU"]
    assert [axes.get_xlabel().partition(" ")[0] for axes in (left, right)] == ["accuracy", "AUC"]
    assert all(axes.get_xlim()[0] < 0 < axes.get_xlim()[1] for axes in (left, right))
    assert "-0.0020" in {item.get_text() for item in texts(picture)}


def test_policies_other_than_polynomial_are_dashed_and_named() -> None:
    items = [measured("ckks", 1.0), replace(measured("ckks", 2.0), policy="client")]
    (axes,) = figures.figure_networks([Comparison("a", "R2", 1, items)], None).axes
    styles = [line.get_linestyle() for line in axes.get_lines() if len(line.get_xdata()) > 1]
    assert styles == ["-", "--"]
    assert axes.get_title(loc="left") == "a, 1 row, dashed: policy client"


@pytest.mark.parametrize("draw", [figures.figure_networks, figures.figure_crossover])
@pytest.mark.parametrize("insecure", [False, True])
def test_a_panel_for_each_comparison_and_its_caveat(draw: Callable[..., Picture], insecure: bool) -> None:
    picture = draw([compared(insecure), compared(), compared()], dataset(synthetic=True))
    picture.draw_without_rendering()
    shown = [axes.get_title(loc="left") for axes in picture.axes]
    assert set(shown) == {"logistic regression\nsigmoid of degree 3, 64 rows"}
    assert len(shown) == 3 * (1 + (draw is figures.figure_crossover))
    heading = picture.get_suptitle()
    assert ("INSECURE TEST KEYS" in heading) == insecure
    assert "SYNTHETIC DATA" in heading


def test_the_ring_stands_where_two_schemes_are_equal() -> None:
    near = replace(measured("paillier", 40.0), rounds=2, bytes_up=0, bytes_down=0)
    far = replace(measured("ckks", 10.0), rounds=0, bytes_up=1_000_000, bytes_down=0)
    picture = figures.figure_crossover([Comparison("a", "accuracy", 64, [near, far])], None)
    labels = [item.get_text() for item in texts(picture) if item.get_text().startswith("equal at")]
    assert labels == ["equal at 10 ms", "equal at 36.4 Mbit/s"]
