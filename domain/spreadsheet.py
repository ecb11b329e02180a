"""Cells of files that people open in a spreadsheet program."""

# The last four are the full-width forms of the first four, which East Asian versions run as well.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_cell(value: str) -> str:
    """`value`, with an apostrophe before it where a spreadsheet program would run it as a formula.

    Judged also without leading spaces, which some programs drop (OWASP, CSV Injection). The import drops the
    apostrophe of phone numbers again.
    """
    if value.startswith(_FORMULA_STARTS) or value.lstrip().startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
