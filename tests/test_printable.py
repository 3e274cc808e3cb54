"""Texts that are not ours: what a terminal would obey is escaped, and words stay."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esl_lava.printable import make_printable


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\x7f", r"a\x0ab\x0d\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202egnp.exe\u2069", r"\u202egnp.exe\u2069"),
        ("\u2028\u2029\u061c", r"\u2028\u2029\u061c"),
        ("\udcff", r"\udcff"),
    ],
)
def test_unsafe_characters_become_escapes(text: str, printed: str) -> None:
    assert make_printable(text) == printed


@pytest.mark.parametrize("text", ["Größe µ", "層 1", "שלום", "🦎 é", r"C:\x1b"])
def test_words_stay(text: str) -> None:
    assert make_printable(text) == text


def test_characters_that_stay_on_request() -> None:
    assert make_printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


@given(st.text(st.characters(codec=None)))
def test_every_text_can_be_printed(text: str) -> None:
    printed = make_printable(text)
    printed.encode()
    assert len(printed.splitlines()) <= 1
    assert make_printable(printed) == printed


def test_all_characters_of_the_kinds_are_escaped() -> None:
    kinds = ("Cc", "Cs", "Zl", "Zp")
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    for character in map(chr, range(sys.maxunicode + 1)):
        unsafe = (
            unicodedata.category(character) in kinds
            or unicodedata.bidirectional(character) in directions
        )
        assert not unsafe or make_printable(character).startswith("\\")
