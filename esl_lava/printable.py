"""Texts that are not ours, such as names in files, made safe to print."""

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: a terminal obeys their sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these change the direction of the text
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff]"  # lone surrogates, which no encoding can write
)


def make_printable(text: str, keep: str = "") -> str:
    r"""Return a text with escapes such as \x1b in place of characters that are unsafe to print.

    Unsafe are control characters, characters that change the direction of the text, separators of
    lines, and lone surrogates. All other Unicode characters stay.

    Args:
        text: the text.
        keep: unsafe characters that stay all the same, for example a newline.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
