"""Markdown tables of saved benchmark results, and plots of how cost grows: python -m benchmarks.report FILE.json [...]

Every row is the median of its rounds; the last but one column is a row's median over that of sure_fast in the same run.
With `--write FILE.md` the text between the markers `<!-- benchmarks -->` and `<!-- /benchmarks -->` is replaced; with
`--headlines FILE.md` that between `<!-- headlines -->` and `<!-- /headlines -->` by a few of the rows; with
`--floors FILE.md` that between `<!-- floors -->` and `<!-- /floors -->` by times as multiples of their floors; with
`--plot FILE.png` the groups named "scaling: ..." are drawn.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from benchmarks import floors

SCALING = "scaling: "
HEADLINES = {
    "training step [24, 1, 128, 128], 4 classes": "published style",
    "training step with noise over images [2, 1, 96, 96, 96], 3 classes": "eager reference",
    "training step [2, 1, 96, 96, 96], 3 classes": "eager reference",
    "evidential_loss forward + backward [2, 4, 96, 96, 96]": "torch.compile(reference)",
    "gradient_uncertainty_loss forward + backward, 2 × 6000 boundary voxels": "10⁷ sampled pairs an image, PyTorch",
    "boundary_distance [1, 128, 128, 128] max_distance=4.0": "scikit-image + SciPy",
    "surface_distances [1, 128, 128, 128], 4 classes": "MONAI HausdorffDistanceMetric, HD95 alone",
}
"""Rows for people in a hurry: a group, and what it is compared with."""


def groups_of(saved: dict) -> dict[str, list[dict]]:
    groups = defaultdict(list)
    for entry in saved["benchmarks"]:
        groups[entry["group"]].append(entry)
    return groups


def tables(path: Path) -> str:
    saved = json.loads(path.read_text())
    machine = saved["machine_info"]["cpu"]
    groups = groups_of(saved)
    lines = [
        f"{machine.get('brand_raw', 'CPU')}, {saved['benchmarks'][0]['extra_info']['threads']} threads, "
        f"{saved['datetime'][:10]}, `make bench`:",
        "",
        "| op and input | implementation | median ms | × sure_fast | peak extra MB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for group, entries in groups.items():
        if group.startswith(SCALING) or group == floors.MACHINE:
            continue
        ours = next(e for e in entries if e["extra_info"]["implementation"] == "sure_fast")["stats"]["median"]
        for entry in sorted(entries, key=lambda e: e["stats"]["median"]):
            info, median = entry["extra_info"], entry["stats"]["median"]
            cells = [group, info["implementation"], f"{median * 1e3:.2f}", f"{median / ours:.1f}"]
            lines.append(f"| {' | '.join(cells)} | {info['peak_extra_bytes'] / 2**20:.1f} |")
    return "\n".join(lines)


def headlines(path: Path) -> str:
    saved = json.loads(path.read_text())
    groups = groups_of(saved)
    threads = saved["benchmarks"][0]["extra_info"]["threads"]
    machine = saved["machine_info"]["cpu"].get("brand_raw", "CPU")
    lines = [
        f"{machine}, {threads} threads, {saved['datetime'][:10]}, `make bench`:",
        "",
        "| | sure_fast, ms | compared with | its ms | times |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for group, other in HEADLINES.items():
        ours, theirs = (
            next(e["stats"]["median"] for e in groups[group] if e["extra_info"]["implementation"] == name) * 1e3
            for name in ("sure_fast", other)
        )
        lines.append(f"| {group} | {ours:.1f} | {other} | {theirs:.0f} | **{theirs / ours:.0f}** |")
    return "\n".join(lines)


def plot(path: Path, to: Path) -> None:
    """Time and peak memory over the size, a row of panels for each scaling group."""
    from matplotlib.figure import Figure

    saved = json.loads(path.read_text())
    groups: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for group, entries in groups_of(saved).items():
        for entry in entries if group.startswith(SCALING) else ():
            groups[group.removeprefix(SCALING)][entry["extra_info"]["implementation"]].append(entry)
    figure = Figure(figsize=(13, 3.6 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 2, squeeze=False)
    for (group, implementations), (time, memory) in zip(groups.items(), panels, strict=True):
        for name, entries in implementations.items():
            entries.sort(key=lambda e: e["extra_info"]["size"])
            sizes = [e["extra_info"]["size"] for e in entries]
            style = {"marker": "o", "linewidth": 2.2 if name == "sure_fast" else 1.2, "label": name}
            time.loglog(sizes, [e["stats"]["median"] for e in entries], **style)
            memory.loglog(sizes, [e["extra_info"]["peak_extra_bytes"] / 2**20 for e in entries], **style)
        for panel, what in ((time, "median time (s)"), (memory, "peak extra memory (MB)")):
            panel.set(title=group, xlabel="voxels" if "step" in group else "boundary voxels", ylabel=what)
            panel.grid(alpha=0.3)
        memory.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    threads = saved["benchmarks"][0]["extra_info"]["threads"]
    brand = saved["machine_info"]["cpu"].get("brand_raw", "CPU")
    figure.suptitle(f"{brand}, {threads} threads, {saved['datetime'][:10]}")
    figure.savefig(to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, help="file whose marked section is replaced")
    parser.add_argument("--headlines", type=Path, help="file whose headline table is replaced, from the first file")
    parser.add_argument("--floors", type=Path, help="file whose floor table is replaced, from the first file")
    parser.add_argument("--plot", type=Path, help="PNG of the scaling groups of the first file")
    options = parser.parse_args()
    if options.plot is not None:
        plot(options.files[0], options.plot)
    if options.headlines is not None:
        replace(options.headlines, "headlines", headlines(options.files[0]))
    if options.floors is not None:
        replace(options.floors, "floors", floors.table(groups_of(json.loads(options.files[0].read_text()))))
    text = "\n\n".join(tables(path) for path in options.files)
    if options.write is None:
        print(text)
    else:
        replace(options.write, "benchmarks", text)


def replace(file: Path, marker: str, text: str) -> None:
    """Puts text between <!-- marker --> and <!-- /marker -->."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = file.read_text().split(start)
    file.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
