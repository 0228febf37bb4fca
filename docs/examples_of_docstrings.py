"""For the API pages: `Example (what it shows):` in a docstring is a section of examples."""

import re

import griffe


class Examples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example(?: \((.*)\))?:$", r"Examples:\n    \1\n", obj.docstring.value, flags=re.MULTILINE
            )
