"""The one exception that users of cryotwin_nb need to know."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to cryotwin_nb cannot be used; the message says what, why and what to do.

    Parameters
    ----------
    where : str
        The file, argument or object at fault.
    found : str
        What was there.
    expected : str
        What should have been there.
    remedy : str
        What the user can do about it.
    """

    def __init__(self, where: object, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}. {remedy}")
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
