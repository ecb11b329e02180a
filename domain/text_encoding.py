"""The encoding of a text file, told from its first bytes."""

import codecs

from charset_normalizer import from_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# What a file of Western names holds above ASCII. CP1252 decodes nearly any bytes, so it is believed only where it
# gives these and nothing stranger.
_WESTERN = frozenset(
    "\xa0\xa1\xa3\xa7\xa9\xaa\xab\xae\xb0\xb2\xb3\xb4\xb7\xba\xbb\xbf\u20ac\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2026\u2022"
    "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœšžßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŸŒŠŽ"
)

FALLBACK = "fanfare_cp1252"
"""Name of the decoding error handler that reads bytes which are not UTF-8 as CP1252."""


def detect(sample: bytes) -> str:
    """A Python codec name for a file that begins with `sample`; 64 kB are plenty.

    In this order: byte order mark; UTF-16 without one, by its zero bytes; UTF-8; CP1252 (the superset of Latin-1
    that Windows writes) where the result looks Western; otherwise what charset-normalizer finds likeliest.
    """
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if utf_16 := _utf_16_without_mark(sample):
        return utf_16
    if _is_utf_8(sample):
        return "utf-8"
    western = sample.decode("cp1252", "replace")
    if all(character in _WESTERN for character in western if not character.isascii()):
        return "cp1252"
    best = from_bytes(sample).best()
    return best.encoding if best is not None else "cp1252"


def read_as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Decode the bytes that `error` complains of as CP1252, or as Latin-1 where that has no such character.

    A file is called UTF-8 after its first 64 kB; one that has been pasted together may hold other bytes further on.
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    try:
        return wrong.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return wrong.decode("latin-1"), error.end


def _utf_16_without_mark(sample: bytes) -> str:
    """Header and digits of a contacts file are ASCII: in UTF-16 every second byte of them is zero."""
    even, odd = sample[0:1000:2], sample[1:1000:2]
    if odd and odd.count(0) > len(odd) // 2 and not even.count(0):
        return "utf-16-le"
    if even and even.count(0) > len(even) // 2 and not odd.count(0):
        return "utf-16-be"
    return ""


def _is_utf_8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
