"""The blocks are the document's own words."""

import pytest

import document


@pytest.mark.parametrize("path", sorted(document.BLOCKS.iterdir()), ids=lambda path: path.name)
def test_block_is_verbatim(path):
    originals = list(document.ORIGINALS.glob("*.txt")) if document.ORIGINALS.is_dir() else []
    if not originals:
        pytest.skip("the document is not beside this clone")
    assert any(path.read_text() in original.read_text() for original in originals)
