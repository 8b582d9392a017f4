"""The comparison as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data.corruptions import CORRUPTIONS
from ..engine import slices
from ..engine.files import write_text
from ..engine.table import EXPLANATIONS, in_unit
from ..methods import DEFAULT
from .curves import FARTHEST, GRADIENT_BINS, POINTS
from .results import DETECTION, USABLE, Comparison
from .tables import DETECTED, difference, main_metrics, typeset

CURVES = {
    "dice": "Dice",
    "ece": "ECE, top label",
    "ueo": "UEO",
    "mean_uncertainty": "mean u",
    "ucc_g": "UCC_g",
    "ood_auroc": "OOD AUROC",
}
"""Metrics drawn against severity."""
STYLE = """
:root { color-scheme: light; --line: #d9dde3; --soft: #5b6570; --best: #e3f4e6; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1rem clamp(.8rem, 3vw, 2rem) 4rem; color: #1b2026; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 1.2rem 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.3rem 0 .4rem; }
p, li { max-width: 75ch; } .note { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0; } a { color: #0b5cad; }
pre { background: #f5f6f8; padding: .7rem .9rem; border-radius: 6px; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; font-size: .92rem;
  min-width: 100%; }
th, td { padding: .38rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #aab2bc; font-weight: 600; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; z-index: 1; }
td small { display: block; color: var(--soft); font-size: .76rem; line-height: 1.25; }
td.best { background: var(--best); font-weight: 700; } td.best small { font-weight: 400; }
.grid { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 215px), 1fr)); }
.grid.four { grid-template-columns: repeat(auto-fill, minmax(min(100%, 245px), 1fr)); }
.grid.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); max-width: 1000px; }
.single { max-width: 600px; } .single img { max-width: 100%; height: auto; }
.grid img { width: 100%; height: auto; display: block; }
figure { margin: 0; } figcaption { font-size: .86rem; color: var(--soft); padding: .15rem 0 .3rem; }
.slices { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.pair { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 3px; }
.pair img { width: 100%; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem .9rem; font-size: .88rem; margin: .3rem 0 .6rem; }
.legend i { display: inline-block; width: 1.1em; height: .28em; border-radius: 2px; vertical-align: middle;
  margin-right: .35em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; }
  th, td { padding: .34rem .5rem; } th:first-child { white-space: normal; width: 6.2rem; min-width: 6.2rem; }
  .strip { display: flex; overflow-x: auto; scroll-snap-type: x proximity; }
  .strip figure { flex: 0 0 76%; scroll-snap-align: start; }
}
"""


def write(comparison: Comparison, path: Path) -> None:
    """Tables, curves and slices; replaced in one step."""
    swept = any(run.sweep for run in comparison.runs)
    parts = [
        _head(comparison, swept),
        _slices(comparison),
        _dots(comparison),
        _tables(comparison),
        _robustness(comparison) if swept else "",
        _calibration(comparison),
        _principles(comparison),
        _settings(comparison),
    ]
    title = "Comparison of uncertainty methods"
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    write_text(path, page)


def _head(comparison: Comparison, swept: bool) -> str:
    cases = len(comparison.runs[0].results["per_case"])
    seeds = comparison.description["seeds"]
    sections = {"slices": "Slices", "numbers": "Main numbers", "tables": "Tables", "robustness": "Robustness",
                "calibration": "Calibration and error detection",
                "principles": "Uncertainty against gradient and distance", "settings": "Settings"}  # fmt: skip
    if not swept:
        del sections["robustness"]
    links = "".join(f'<a href="#{key}">{text}</a>' for key, text in sections.items())
    return (
        f"<h1>Comparison of uncertainty methods</h1><p>{len(comparison.presets)} methods, {cases} test "
        f"case{'s' * (cases != 1)}, {len(seeds)} seed{'s' * (len(seeds) != 1)}. The same network, data, split and "
        f"schedule for all{_but_added(comparison)}.</p><nav>{links}</nav>"
    )


def _but_added(comparison: Comparison) -> str:
    names = [html.escape(comparison.title(preset)) for preset in comparison.presets if preset in comparison.added]
    return f" but {', '.join(names)}, whose results were made elsewhere" if names else ""


def _dots(comparison: Comparison) -> str:
    """The main numbers of every method with their intervals, a panel a metric."""
    presets = comparison.presets
    directions = {metric: d for metrics in comparison.groups.values() for metric, (_, d) in metrics.items()}
    shown = {**main_metrics(comparison), **{m: title for m, (title, _) in comparison.detection_titles.items()}}
    panels = []
    for metric, title in shown.items():

        def draw(axis: Any, metric: str = metric) -> None:
            for row, preset in enumerate(presets):
                statistics = comparison.statistics(preset, metric)
                if math.isnan(statistics.mean):
                    continue
                colour, y = comparison.colour(preset), len(presets) - row
                if not math.isnan(statistics.low):
                    axis.plot([statistics.low, statistics.high], [y, y], color=colour, linewidth=1.6, alpha=0.6)
                axis.plot([statistics.mean], [y], marker="o", markersize=5, color=colour, linestyle="none")
            axis.set_yticks(range(len(presets), 0, -1), [comparison.title(preset) for preset in presets])
            axis.set_ylim(0.4, len(presets) + 0.6)

        arrow = "larger is better" if directions[metric] > 0 else "smaller is better"
        panels.append(_figure(draw, f"{title}: {arrow}", (3.1, 0.55 + 0.21 * len(presets)), caption=True))
    return (
        '<h2 id="numbers">Main numbers</h2><p class="note">Means over the test cases with their 95 % bootstrap '
        f'intervals.</p><div class="grid wide">{"".join(panels)}</div>'
    )


def _differences(comparison: Comparison) -> str:
    """Of every method to the reference."""
    if len(comparison.presets) < 2:
        return ""
    metrics, reference = main_metrics(comparison), comparison.reference
    columns = {metric: comparison.against(metric, reference) for metric in metrics}
    head = "".join(f"<th>{html.escape(title)}</th>" for title in metrics.values())
    body = "".join(
        f"<tr><th>{comparison.title(preset)}</th>"
        + "".join(f"<td>{difference(*column[preset])}</td>" for column in columns.values())
        + "</tr>"
        for preset in comparison.presets
        if preset != reference
    )
    return (
        f'<h3>Differences to {comparison.title(reference)}</h3><p class="note">Case by case, with 95 % bootstrap '
        "intervals; n. s.: not significant by Wilcoxon's signed-rank test with Holm's correction.</p>"
        f'<div class="scroll"><table><thead><tr><th>Method</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _tables(comparison: Comparison) -> str:
    parts = [
        '<h2 id="tables">Tables</h2><p class="note">Mean over the test cases, a case being the mean over the seeds; '
        "below it the 95 % bootstrap interval over the cases and, of several seeds, the standard deviation of their "
        "means. ↑ larger is better, ↓ smaller. Marked: better than every other method by more than chance, the paired "
        "95 % bootstrap interval of the difference over the cases being above 0; methods with less than "
        f"{USABLE:.0%} of the best mean Dice neither count nor are marked.</p>"
    ]
    classes = [name for c, name in sorted(comparison.class_names.items()) if c > 0]
    per_class = {
        f"{title} by class": {f"{metric}/{name}": (name, direction) for name in classes}
        for metric, title, direction in (
            ("dice", "Dice", 1),
            (in_unit("hd95_mm", comparison.unit), in_unit("HD95 (mm)", comparison.unit), -1),
        )
    }
    for group, metrics in {**comparison.groups, **per_class}.items():
        told = "".join(f'<p class="note">{name}: {html.escape(text)}.</p>' for name, text in EXPLANATIONS.items()
                       if any(title.startswith(f"{name}_") for title, _ in metrics.values()))  # fmt: skip
        told += f'<p class="note">{DETECTED}</p>' if group == DETECTION else ""
        parts.append(f"<h3>{group}</h3>{told}{_table(comparison, metrics)}")
    parts.append(_differences(comparison))
    undefined = []
    for preset in comparison.presets:
        counts = {title: comparison.statistics(preset, metric).undefined
                  for metrics in comparison.groups.values() for metric, (title, _) in metrics.items()}  # fmt: skip
        missing = ", ".join(f"{title} {count}" for title, count in counts.items() if count)
        if missing:
            undefined.append(f"{comparison.title(preset)}: {missing}")
    spoiled = [f"{comparison.title(run.preset)} (seed {run.seed}): {', '.join(run.results['spoiled'])}"
               for run in comparison.runs if run.results["spoiled"]]  # fmt: skip
    absent = [
        f"{name} in {number} of the cases" for name, number in comparison.runs[0].results["absent"].items() if number
    ]
    for what, lines in (
        ("Undefined values, left out of the means", undefined),
        ("NaN or infinity in the prediction, every metric undefined", spoiled),
        ("In neither label nor prediction, hence Dice 1 and HD95 0", absent),
    ):
        if lines:
            parts.append(f'<p class="note">{what}: {html.escape("; ".join(lines))}.</p>')
    return "\n".join(parts)


def _table(comparison: Comparison, metrics: dict[str, tuple[str, int]]) -> str:
    head = "".join(f"<th>{html.escape(title)} {'↑' if d > 0 else '↓'}</th>" for title, d in metrics.values())
    best = {metric: comparison.best(metric, direction) for metric, (_, direction) in metrics.items()}
    rows = []
    for preset in comparison.presets:
        cells = []
        for metric in metrics:
            statistics, seeds = comparison.statistics(preset, metric), comparison.seed_std(preset, metric)
            small = (
                ""
                if math.isnan(statistics.low)
                else f"<small>{typeset(statistics.low)} … {typeset(statistics.high)}</small>"
            )
            small += "" if math.isnan(seeds) else f"<small>seeds ± {typeset(seeds)}</small>"
            mark = ' class="best"' if preset == best[metric] else ""
            cells.append(f"<td{mark}>{typeset(statistics.mean)}{small}</td>")
        rows.append(f"<tr><th>{comparison.title(preset)}</th>{''.join(cells)}</tr>")
    body = "".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr><th>Method</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _robustness(comparison: Comparison) -> str:
    tables = {preset: comparison.robustness(preset) for preset in comparison.presets}
    some = next(table for table in tables.values() if table)
    kinds = [kind for kind in CORRUPTIONS if any(row["kind"] == kind for row in some)]
    tables = {preset: table for preset, table in tables.items() if table}
    parts = [
        '<h2 id="robustness">Robustness</h2><p class="note">Against the severity of a corruption; bands are 95 % '
        "bootstrap intervals. UCC_g is of the clean image's gradient.</p>" + _legend(comparison)
    ]
    for metric, title in CURVES.items():
        panels = []
        values = [v for table in tables.values() for r in table if r["metric"] == metric
                  for v in (r["mean"], r["low"], r["high"]) if not math.isnan(v)]  # fmt: skip
        limits = (min(values), max(values)) if values else (0.0, 1.0)
        for kind in kinds:

            def draw(axis: Any, kind: str = kind, metric: str = metric, limits: tuple[float, float] = limits) -> None:
                levels = CORRUPTIONS[kind].severities
                for preset, table in tables.items():
                    points = [r for r in table if r["metric"] == metric and r["kind"] in ("clean", kind)]
                    x = [r["severity"] for r in points]
                    axis.plot(x, [r["mean"] for r in points], marker="o", markersize=2.5, **_line(comparison, preset))
                    bounds = ([r[end] for r in points] for end in ("low", "high"))
                    axis.fill_between(x, *bounds, color=comparison.colour(preset), alpha=0.08, linewidth=0)
                axis.set_xticks(range(len(levels) + 1), ["clean", *(f"{level:g}" for level in levels)])
                axis.set_xlabel(f"{CORRUPTIONS[kind].title}: {CORRUPTIONS[kind].unit}")
                margin = 0.05 * (limits[1] - limits[0]) or 0.05
                axis.set_ylim(limits[0] - margin, limits[1] + margin)

            panels.append(_figure(draw, f"{title} under {CORRUPTIONS[kind].title}", (2.4, 1.95)))
        parts.append(f'<h3>{title}</h3><div class="grid strip">{"".join(panels)}</div>')
    return "\n".join(parts)


def _calibration(comparison: Comparison) -> str:
    panels = []
    for preset in comparison.presets:
        if not any(comparison.curve(preset, "reliability", "number")):
            continue  # no probabilities are known of it

        def draw(axis: Any, preset: str = preset) -> None:
            confidence, accuracy = (comparison.curve(preset, "reliability", k) for k in ("confidence", "accuracy"))
            shares = comparison.curve(preset, "reliability", "number")
            total = sum(shares) or 1.0
            axis.plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle="--")
            axis.bar([(k + 0.5) / len(shares) for k in range(len(shares))], [n / total for n in shares],
                     width=0.9 / len(shares), color=comparison.colour(preset), alpha=0.25)  # fmt: skip
            axis.plot(confidence, accuracy, marker="o", markersize=3, color=comparison.colour(preset))
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the top label", ylabel="share right")

        panels.append(_figure(draw, comparison.title(preset), (2.5, 2.2), caption=True))

    def risk(axis: Any) -> None:
        for preset in comparison.presets:
            curve = comparison.curve(preset, "risk")
            axis.plot([(k + 1) / POINTS for k in range(len(curve))], curve, **_line(comparison, preset))
        axis.set(xlabel="coverage: share of the voxels, least uncertain first", ylabel="share wrong", xlim=(0, 1))
        axis.set_ylim(bottom=0)

    return (
        '<h2 id="calibration">Calibration and error detection</h2><h3>Reliability of the top label</h3>'
        '<p class="note">Bars: share of the voxels in each bin. On the dashed line a prediction is as often right as '
        f'it says.</p><div class="grid four strip">{"".join(panels)}</div>'
        f"<h3>Risk and coverage</h3>{_legend(comparison)}"
        f'<div class="grid single">{_figure(risk, "risk-coverage curves", (4.0, 2.5))}</div>'
    )


def _principles(comparison: Comparison) -> str:
    def gradient(axis: Any) -> None:
        for preset in comparison.presets:
            curve = comparison.curve(preset, "gradient")
            axis.plot([(k + 0.5) / GRADIENT_BINS for k in range(len(curve))], curve, marker="o", markersize=3,
                      **_line(comparison, preset))  # fmt: skip
        axis.set(xlabel="boundary voxels by image gradient, weakest first", ylabel="mean rank of u", xlim=(0, 1))

    def distance(axis: Any) -> None:
        for preset in comparison.presets:
            curve = comparison.curve(preset, "distance")
            axis.plot(range(len(curve)), curve, marker="o", markersize=3, **_line(comparison, preset))
        axis.set(xlabel="distance to the label boundary (voxels)", ylabel="mean u", xlim=(0, FARTHEST))
        axis.set_ylim(bottom=0)

    return (
        '<h2 id="principles">Uncertainty against gradient and distance</h2><p class="note">Wanted: falling with the '
        f"gradient at the boundary, and with the distance from it.</p>{_legend(comparison)}"
        f'<div class="grid wide">{_figure(gradient, "u against image gradient", (3.7, 2.5))}'
        f"{_figure(distance, 'u against distance', (3.7, 2.5))}</div>"
    )


def _slices(comparison: Comparison) -> str:
    first = comparison.runs[0]
    parts = [
        '<h2 id="slices">Slices</h2><p class="note">The same slice of the same case for every method, its first seed: '
        "prediction, errors (red), and uncertainty on one scale from 0 to 1 for all.</p>",
        _class_legend(comparison),
        f'<div class="single">{_uncertainty_scale()}</div>',
    ]
    for case in first.curves["slices"]:
        tiles = [_tile(first.folder / "slices", case, ("image", "label"), "Image and label")]
        for preset in comparison.presets:
            folder = comparison.of(preset)[0].folder / "slices"
            kinds = [
                kind for kind in ("prediction", "errors", "uncertainty") if (folder / f"{case}-{kind}.png").is_file()
            ]
            tiles.append(_tile(folder, case, kinds, comparison.title(preset)))
        parts.append(f'<h3>{html.escape(case)}</h3><div class="slices">{"".join(tiles)}</div>')
    return "\n".join(parts)


def _tile(folder: Path, case: str, kinds: Sequence[str], caption: str) -> str:
    images = []
    for kind in kinds:
        data = base64.b64encode((folder / f"{case}-{kind}.png").read_bytes()).decode()
        images.append(f'<img alt="{kind} of {html.escape(case)}, {caption}" src="data:image/png;base64,{data}">')
    return f'<figure><div class="pair">{"".join(images)}</div><figcaption>{caption}</figcaption></figure>'


def _class_legend(comparison: Comparison) -> str:
    names = comparison.class_names
    palette = slices.palette(max(names) + 1)
    marks = [(names[c], palette[c]) for c in sorted(names) if c > 0] + [("wrong", slices.WRONG)]
    spans = (
        f'<span><i style="background:rgb({",".join(str(round(255 * float(v))) for v in colour)})"></i>'
        f"{html.escape(name)}</span>"
        for name, colour in marks
    )
    return f'<div class="legend">{"".join(spans)}</div>'


def _uncertainty_scale() -> str:
    def draw(axis: Any) -> None:
        from matplotlib.cm import ScalarMappable

        scale = ScalarMappable(slices.uncertainty_norm(), slices.UNCERTAINTY)
        bar = axis.figure.colorbar(scale, cax=axis, orientation="horizontal", label="uncertainty u")
        bar.set_ticks(slices.TICKS, labels=[f"{tick:g}" for tick in slices.TICKS])

    return _figure(draw, "scale of the uncertainty", (4.0, 0.6), plot=False)


def _settings(comparison: Comparison) -> str:
    description = comparison.description
    split = {part: len(names) for part, names in description["split"].items()}
    rows = {
        "Seeds": ", ".join(map(str, description["seeds"])),
        "Cases": ", ".join(f"{count} {part}" for part, count in split.items()),
        "Test cases": ", ".join(description["split"]["test"]),
        **{f"Version of {name}" if name != "system" else "System": text
           for name, text in description["versions"].items()},
        "Configuration": ", ".join(f"{k} {v}" for k, v in description["config"].items() if v not in (None, [], {})),
        **{f"Options of {comparison.title(preset)}": ", ".join(f"{k} {v}" for k, v in options.items() if v is not None)
           for preset, options in description["options"].items() if options},
    }  # fmt: skip
    body = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in rows.items())
    command = html.escape(description["command"])
    return f'<h2 id="settings">Settings</h2><pre>{command}</pre><dl>{body}</dl>'


def _line(comparison: Comparison, preset: str) -> dict[str, Any]:
    return {"color": comparison.colour(preset), "linewidth": 2.2 if preset == DEFAULT else 1.3}


def _legend(comparison: Comparison) -> str:
    marks = (
        f'<span><i style="background:{comparison.colour(p)}"></i>{comparison.title(p)}</span>'
        for p in comparison.presets
    )
    return f'<div class="legend">{"".join(marks)}</div>'


def _figure(
    draw: Callable[[Any], None], title: str, size: tuple[float, float], *, caption: bool = False, plot: bool = True
) -> str:
    """A panel as an SVG image; `plot`: with the grid and frame of one."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 8, "font.family": "sans-serif"}
    ):
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        draw(axis)
        if plot:
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    below = f"<figcaption>{title}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{data}">{below}</figure>'
