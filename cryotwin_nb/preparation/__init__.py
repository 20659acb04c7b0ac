"""Prepare a refined stack for training (crop, whiten, write compactly), and check its quality with a first look."""

from cryotwin_nb.preparation.findings import Finding, FirstLook
from cryotwin_nb.preparation.look import first_look
from cryotwin_nb.preparation.report import Preparation
from cryotwin_nb.preparation.stack import prepare

__all__ = ["Finding", "FirstLook", "Preparation", "first_look", "prepare"]
