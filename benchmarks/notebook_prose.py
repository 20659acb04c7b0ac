"""Compare the prose of the notebooks with their stored outputs: python benchmarks/notebook_prose.py [00 04 ...].

Numbers: every number in prose, rounded as written there, is printed by a cell of the notebook, or is a parameter of its
code. Other numbers (definitions, citations, numbers of the paper or of the data) are listed with a reason in the
metadata of the cell, as `"numbers": {"2.7": "e"}`; a reason that starts with "=" is a calculation with printed numbers,
such as "= 1 - 0.967", and is repeated.

Paths: a statement that a path follows the images or leaves them agrees with the barrier and the images near each step
that are printed for the path.
"""

from __future__ import annotations

import ast
import operator
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_WORDS = {"four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
_WORDS |= {"thirteen": 13, "forty": 40}
_NUMBER = re.compile(r"(?<![\w.,/])(?<!\w-)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])", re.ASCII)
_NOT_PROSE = (
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|https?://\S+",  # code, formulae, addresses
    r"^#+ .*|^\s*\d+\. |\((?:\d(?:, )?)+\)",  # headings, numbers of list items, references to sections
    r"\b(?:[Ss]ections?|[Nn]otebooks?|[Ee]xercises?|Figs?\.|Eqs?\.|Algorithm|[Pp]oint)\s+\d+\w?"
    r"(?:(?:,| and| to)\s+\d+\w?)*",
)
_FOLLOWS = (
    r"\bfollows (?:the|a)\b|\bworks (?:well|between)|succeeds|is supported|images (?:near|at) every|"
    r"from cluster to cluster"
)
_LEAVES = (
    r"leaves|fails|misses|not supported|without (?:an |any )?images?|no images?\b|\bleaps?\b|jumps to|far from all|"
    r"no setting in which|does not follow|outside all"
)
_PATHS = {
    "Algorithm 1": r"Algorithm 1|direct path",
    "MaxFlux": r"MaxFlux|path of least resistance",
    "chain": r"chain",
    "joined by hand": r"joined by hand|\bpieces?\b",
    "route": r"[Ee]ach route|[Ee]very route",
    "hinge": r"bend of the dense region",
}
_REPORT = re.compile(
    r"^ *(?P<name>[^\n]+?): (?P<barrier>barrier [^\n]*|not measured[^\n]*)\n"
    r" *(?:images near each step|fewest images near a step of each piece): (?P<near>[\d ]+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Report:
    """Printed barrier of a path, and the printed numbers of images near its steps."""

    name: str
    barrier: str
    near: tuple[int, ...]

    @property
    def follows(self) -> bool:
        """Whether images lie near every step of the path."""
        return min(self.near) > 0


def contradictions(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the statements of a notebook that its outputs contradict, or that no output supports."""
    return [*_numbers(notebook), *_claims(notebook)]


def reports(cells: list[nbformat.NotebookNode]) -> list[Report]:
    """Return what cells print on paths, in order."""
    found = (match for cell in cells for match in _REPORT.finditer(_printed(cell)))
    return [Report(m["name"], m["barrier"], tuple(map(int, m["near"].split()))) for m in found]


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")


def _values(text: str, with_point: bool = False) -> list[float]:
    """Return the numbers in a text, or only those with a decimal point."""
    found = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))
    return [float(number) for number in found if "." in number or not with_point]


def _numbers(notebook: nbformat.NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [value for cell in code for value in _values(_printed(cell))]
    parameters = [line for cell in code for line in cell.source.splitlines() if re.match(r"[A-Z][A-Z_, ]* = ", line)]
    known = [*printed, *(value for line in parameters for value in _values(line))]
    precise = [value for text in (*map(_printed, code), *parameters) for value in _values(text, with_point=True)]
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        declared = dict(cell.metadata.get("numbers", {}))
        for number in _in_prose(cell.source):
            reason = declared.get(number)
            if reason is None and not _found(number, precise if "." in number else known):
                yield f"{cell.id}: {number} is neither printed nor declared"
            if reason is not None and reason.startswith("="):
                yield from (f"{cell.id}: {number}: {problem}" for problem in _recalculated(number, reason, printed))
        for number in declared.keys() - set(_in_prose(cell.source)):
            yield f"{cell.id}: {number} is declared, but does not occur"


def _read(source: str) -> str:
    """Return the statements of a text: what comes before its exercises, and after them in a section of its own."""
    return re.sub(r"^(?:#+ |\*\*)Exercises.*?(?=^## |\Z)", "", source, flags=re.MULTILINE | re.DOTALL)


def _in_prose(source: str) -> list[str]:
    """Return the numbers of a text as they are written, without those in code, formulae, references and exercises."""
    source = _read(source)
    for pattern in _NOT_PROSE:
        source = re.sub(pattern, " ", source, flags=re.MULTILINE | re.DOTALL if "```" in pattern else re.MULTILINE)
    words = re.findall(rf"\b(?:{'|'.join(_WORDS)})\b", source, re.IGNORECASE)
    return [*(match[0] for match in _NUMBER.finditer(source)), *(word.lower() for word in words)]


def _value(number: str) -> float:
    return float(_WORDS[number]) if number in _WORDS else float(number.replace(",", ""))


def _found(number: str, known: list[float]) -> bool:
    """Whether a number is among the known ones, rounded as it is written; small whole numbers are not rounded."""
    value, decimals = _value(number), len(number.partition(".")[2])
    if not decimals and value < 10:
        return value in known
    return any(round(other, decimals) == value for other in known)


def _recalculated(number: str, reason: str, printed: list[float]) -> Iterator[str]:
    """Repeat a calculation: its operands above ten and with decimals are printed, and its result is the number."""
    expression = reason.removeprefix("=").strip()
    for operand in re.findall(r"\d+\.\d+|\d{2,}", expression):
        if operand != "10" and not _found(operand, printed):
            yield f"{operand} of {reason!r} is not printed"
    result, decimals = _calculate(ast.parse(expression, mode="eval").body), len(number.partition(".")[2])
    if round(result, decimals) != _value(number):
        yield f"{reason!r} is {result:.4g}"


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _calculate(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_calculate(node.left), _calculate(node.right))
    if isinstance(node, ast.Constant):
        return float(node.value)
    raise ValueError(ast.unparse(node))


def _claims(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Check each clause on a path; a clause without a name is on the path named or reported last."""
    everything = reports(notebook.cells)
    since, subject = [], ""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            here = reports([cell])
            since = [*since, *here]
            subject = next((name for report in here[-1:] for name in _PATHS if name in report.name), subject)
            continue
        if cell.source.startswith("## "):
            since = []
        text = re.sub(r"\s+", " ", re.sub(r"^#.*", "", _read(cell.source), flags=re.MULTILINE).replace("*", ""))
        for clause in re.split(r"(?<=[.?!:;]) ", text):
            named = [name for name, pattern in _PATHS.items() if re.search(pattern, clause)]
            subject = named[-1] if named else subject
            leaves, follows = re.search(_LEAVES, clause), re.search(_FOLLOWS, clause)
            about = named or [subject]
            if clause.endswith("?") or not everything or not (leaves or follows) or not subject:
                continue
            for name in about:
                met = [r for r in since if name in r.name] or [r for r in everything if name in r.name]
                wrong = [r for r in met if r.follows == bool(leaves)]
                if not met:
                    yield f"{cell.id}: nothing is printed on {name}: {clause}"
                for report in wrong:
                    yield f"{cell.id}: {clause!r}, but {report.name}: {report.barrier}; images near steps {report.near}"


if __name__ == "__main__":
    failed = False
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if len(sys.argv) < 2 or path.name[:2] in sys.argv[1:]:
            for problem in contradictions(nbformat.read(path, as_version=4)):
                failed = True
                print(f"{path.name} {problem}")
    sys.exit(failed)
