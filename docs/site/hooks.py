"""Pages of the site that are made: from files at the root of the checkout, of the recipes, and of the public names."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
API = {
    "operators": ("Operators", "sure_fast", "sure_fast/__init__.py", str.islower),
    "losses": ("Losses", "sure_fast.losses", "sure_fast/losses/__init__.py", None),
    "metrics": ("Metrics", "sure_fast.metrics", "sure_fast/metrics/__init__.py", None),
    "data": ("Data", "sure_fast.data", "sure_fast/data/__init__.py", None),
}
"""By page its title, the module whose public names it lists, the file that lists them, and which of them."""
OTHER = {
    "integrations": (
        "Integrations",
        "sure_fast.integrations.monai.TrainerLoss",
        "sure_fast.integrations.nnunet.trainer.nnUNetTrainerSURE",
        "sure_fast.integrations.nnunet.predictor.EvidentialPredictor",
        "sure_fast.integrations.nnunet.loss.NNUNetLoss",
    ),
    "methods": ("Methods and backends", "sure_fast.methods.Method", "sure_fast.use_backend", "sure_fast.explain"),
}
CSS = """
.md-grid { max-width: 68rem; } math { font-size: 1.08em; }
.md-typeset table:not([class]) { font-size: .64rem; } .md-typeset table:not([class]) td { padding: .4em .7em; }
"""


def on_files(files: Files, config: Any) -> Files:
    pages = {
        "index.md": _linked((ROOT / "README.md").read_text(encoding="utf-8")),
        "contributing.md": _linked((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")),
        "changelog.md": _linked((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")),
        "recipes.md": _recipes(),
        "stylesheets/site.css": CSS,
    }
    for page, (title, module, file, wanted) in API.items():
        names = [f"{module}.{name}" for name in _public(ROOT / file) if wanted is None or wanted(name)]
        pages[f"api/{page}.md"] = _api(title, names)
    for page, (title, *names) in OTHER.items():
        pages[f"api/{page}.md"] = _api(title, names)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"`\1`", markdown)  # files of the checkout that are no pages


def on_page_content(content: str, **_: Any) -> str:
    """Formulas of docstrings as MathML."""
    return re.sub(r":math:<code>(.*?)</code>", lambda m: convert(html.unescape(m.group(1))), content, flags=re.S)


def _public(file: Path) -> list[str]:
    """`__all__`, without importing anything."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{file}: expected __all__, got none")


def _api(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def _linked(text: str) -> str:
    """Links from the root of the checkout as links among the pages."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = text.replace("](CONTRIBUTING.md)", "](contributing.md)").replace("](README.md)", "](index.md)")
    return re.sub(r"\[([^\]]+)\]\((recipes|examples|benchmarks)/[^)]*\)", r"`\1`", text)


def _recipes() -> str:
    parts = ["# Recipes and examples\n\nSettings of data sets, for `python -m sure_fast.train --config FILE`."]
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        parts.append(f"## {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8')}```")
    parts.append("## In other programs\n\nShort scripts that run as they are, in `examples/`.")
    for path in sorted((ROOT / "examples").glob("*.py")):
        parts.append(f"### {path.stem}\n\n```python\n{path.read_text(encoding='utf-8')}```")
    return "\n\n".join(parts) + "\n"
