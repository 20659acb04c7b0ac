"""Reading of YAML files of plain values, within limits of size and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cryotwin_nb.errors import InputError


def read_yaml(path: Path, remedy: str) -> Any:
    """Return the content of a YAML file of plain values.

    Raises
    ------
    InputError
        If the file is not text, exceeds 1 MB, is not YAML, contains anything but plain values, or has more than
        20 aliases: nested aliases can exhaust memory.
    """
    try:
        if path.stat().st_size > 2**20:
            raise ValueError("more than 1 MB")
        return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except Exception as error:  # the parser also raises exceptions of other classes
        found = f"{type(error).__name__}: {error}"
        sentence = f"{path} cannot be read as a YAML file of plain values ({found})."
        raise InputError(path, found, "a YAML file of plain values", remedy, sentence) from error


class _PlainLoader(yaml.SafeLoader):
    """YAML safe loader that limits the number of aliases."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > 20:
            raise yaml.YAMLError("more than 20 aliases")
        return super().compose_node(parent, index)
