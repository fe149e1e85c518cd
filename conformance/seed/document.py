"""The code of the seed document, kept verbatim in blocks/, and how it is run: executed as it is, in a namespace of its own."""

from pathlib import Path

HERE = Path(__file__).parent
BLOCKS = HERE / "blocks"
# Beside a clone in continuous integration; a public clone does not have it.
ORIGINALS = HERE.parents[2] / "shared" / "seeds"


def block(name: str) -> str:
    """The text of one block."""
    return (BLOCKS / name).read_text()


def run(*names: str, **given) -> dict:
    """Executes blocks one after the other, as a reader of the document would paste them; returns what they define."""
    namespace = {"__name__": "seed", **given}
    for name in names:
        exec(compile(block(name), str(BLOCKS / name), "exec"), namespace)
    return namespace
