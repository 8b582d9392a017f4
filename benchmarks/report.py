"""Markdown tables of saved benchmark results: python -m benchmarks.report FILE.json [...]

Every row is the median of its rounds; `speed-up` is a row's median over that of sure_fast in the same run. With
`--write README.md` the text between the markers `<!-- benchmarks -->` and `<!-- /benchmarks -->` is replaced.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def tables(path: Path) -> str:
    saved = json.loads(path.read_text())
    machine = saved["machine_info"]["cpu"]
    groups = defaultdict(list)
    for entry in saved["benchmarks"]:
        groups[entry["group"]].append(entry)
    lines = [
        f"{machine.get('brand_raw', 'CPU')}, {saved['benchmarks'][0]['extra_info']['threads']} threads, "
        f"{saved['datetime'][:10]}, `make bench`:",
        "",
        "| op and input | implementation | median ms | × sure_fast | peak extra MB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for group, entries in groups.items():
        ours = next(e for e in entries if e["extra_info"]["implementation"] == "sure_fast")["stats"]["median"]
        for entry in sorted(entries, key=lambda e: e["stats"]["median"]):
            info, median = entry["extra_info"], entry["stats"]["median"]
            cells = [group, info["implementation"], f"{median * 1e3:.2f}", f"{median / ours:.1f}"]
            lines.append(f"| {' | '.join(cells)} | {info['peak_extra_bytes'] / 2**20:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, help="file whose marked section is replaced")
    options = parser.parse_args()
    text = "\n\n".join(tables(path) for path in options.files)
    if options.write is None:
        print(text)
        return
    whole = options.write.read_text()
    before, rest = whole.split(START)
    after = rest.split(END)[1]
    options.write.write_text(f"{before}{START}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
