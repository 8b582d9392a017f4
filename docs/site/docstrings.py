"""What the docstrings of this project call otherwise than the parser of the site."""

from __future__ import annotations

from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """`Example:` holds doctests, as the parser's `Examples:` does."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
