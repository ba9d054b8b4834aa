"""The API reference: python docs/api.py [FOLDER] writes it as HTML, and fails on anything that pdoc warns of.

With `--plain` pages have neither sources, links nor a search, and docstrings stand as they are written: what pdoc warns
of is found before, in a third of the time.
"""

from __future__ import annotations

import html
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

PACKAGES = ("unitok_tokenizers", "unitok_vocoder", "unitok_training")
PLAIN = "--plain"
ROOT = Path(__file__).resolve().parents[1]


def main(folder: Path, *, plain: bool = False) -> int:
    """Build the reference of every public module."""
    import pdoc
    import pdoc.render
    from markupsafe import Markup

    unitok = importlib.import_module("unitok")
    for name in unitok.__all__:  # they are imported when first used, which pdoc does not try
        setattr(unitok, name, getattr(unitok, name))
    pdoc.render.configure(docformat="google", show_source=not plain, search=not plain)
    if plain:
        pdoc.render.env.filters |= {
            "to_html": html.escape,
            "format_signature": lambda signature, colon: html.escape(str(signature)),
            "linkify": lambda code, namespace="", shorten=True: Markup(code),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # swig types of sentencepiece and protobuf warn on import
        warnings.filterwarnings("ignore", "builtin type .* has no __module__ attribute", DeprecationWarning)
        # a dataclass whose base stands in another module: pdoc looks there for what the base's annotations name
        warnings.filterwarnings("ignore", r"Error parsing type annotation .*\.__init__", UserWarning)
        # `unitok.__all__` names no modules, so that pdoc would leave them out; the command line has `--help`
        own = [f"unitok.{module.name}" for module in pkgutil.iter_modules(unitok.__path__)]
        own = [name for name in own if name not in ("unitok.cli", "unitok.__main__")]
        pdoc.pdoc("unitok", *own, *PACKAGES, output_directory=folder)
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    folders = [word for word in sys.argv[1:] if word != PLAIN]
    sys.exit(main(Path(folders[0]) if folders else ROOT / "build" / "api", plain=PLAIN in sys.argv))
