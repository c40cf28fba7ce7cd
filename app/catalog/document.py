"""A YAML document read with its places: every value that is asked for is checked, every mistake is kept.

It knows the shapes of values, not what they mean; `loader.py` asks for each key by name, and what it never asked
for is an unknown key.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from typing import Final, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from app.catalog.errors import Mistake
from app.kit.json import Json

# An alias may point at a value that contains it; real catalogs are six levels deep and a few thousand values large.
_MAX_DEPTH: Final = 20
_MAX_VALUES: Final = 200_000

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?")

_Word = TypeVar("_Word", bound=str)


class Document:
    """The mistakes of one file, gathered while its sections are read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []

    def note(self, node: Node | None, key: str, problem: str, fix: str) -> None:
        """Keep a mistake at the place of `node`."""
        line = None if node is None else node.start_mark.line + 1
        self.mistakes.append(Mistake(file=self.file, line=line, key=key, problem=problem, fix=fix))

    def parse(self, content: bytes) -> "Section | None":
        """Parse UTF-8 YAML whose top is a mapping; None, with the mistake noted, when it is not that."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = content.count(b"\n", 0, exc.start) + 1
            self._note_line(line, "is not UTF-8 text.", "Save the file as UTF-8.")
            return None
        try:
            root = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            line = 1 if mark is None else mark.line + 1
            reason = exc.problem or exc.context or "it cannot be parsed"
            self._note_line(
                line, f"is not valid YAML: {reason}.", "Correct the syntax on this line or just above it."
            )
            return None
        except YAMLError as exc:
            reason = str(exc).splitlines()[0]
            self._note_line(1, f"is not valid YAML: {reason}.", "Remove what a text file cannot hold.")
            return None
        if not isinstance(root, MappingNode):
            self._note_line(1, "is not a mapping.", "Start the file with `version: 1`.")
            return None
        if not _is_finite(root):
            self._note_line(
                1, "is nested without end, or far too large.", "Remove the alias that contains itself."
            )
            return None
        return Section(self, root, "")

    def _note_line(self, line: int, problem: str, fix: str) -> None:
        self.mistakes.append(Mistake(file=self.file, line=line, key="", problem=problem, fix=fix))


class Section:
    """One mapping of the document. A getter notes a bad value and answers the default, so that reading goes on."""

    def __init__(self, document: Document, node: MappingNode, path: str) -> None:
        self.document = document
        self.node = node
        self.path = path
        self._values: dict[str, Node] = {}
        self._keys: dict[str, Node] = {}
        self._asked: list[str] = []
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else ""
            if not name:
                document.note(key, path, "has a key that is not a name.", "Write keys as plain words.")
            elif name in self._values:
                first = self._keys[name].start_mark.line + 1
                document.note(
                    key, self.at(name), f"is written twice (first on line {first}).", "Keep one of the two."
                )
            else:
                self._keys[name] = key
                self._values[name] = value

    def at(self, key: str) -> str:
        """The dotted name of a key of this section."""
        return f"{self.path}.{key}" if self.path else key

    def note(self, key: str, problem: str, fix: str) -> None:
        """Keep a mistake about one of this section's keys, at the key, or at the section when it is absent."""
        self.document.note(self._keys.get(key, self.node), self.at(key) if key else self.path, problem, fix)

    def has(self, key: str) -> bool:
        """Whether the key is written and not null."""
        self._ask(key)
        return self._find(key) is not None

    def names(self) -> tuple[str, ...]:
        """All keys as written, for a section whose keys are names; none of them is unknown any more."""
        self._asked.extend(self._values)
        return tuple(self._values)

    def close(self) -> None:
        """Note every key that nobody asked for."""
        for name, key in self._keys.items():
            if name not in self._asked:
                if name == "<<":
                    fix = "Merge keys are not read: alias a whole value (`key: *name`) or write the keys out."
                else:
                    fix = suggestion(name, self._asked, otherwise="Remove it")
                self.document.note(key, self.at(name), "is an unknown key.", fix)

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """A string as written."""
        node = self._want(key, required)
        if node is None:
            return default
        if not isinstance(node, ScalarNode) or node.tag != f"{_TAG}str" or not node.value:
            self.note(
                key,
                f"is {_describe(node)}, not a text.",
                "Write a text, in quotes if it looks like a number.",
            )
            return default
        return str(node.value)

    def date_text(self, key: str) -> str | None:
        """A scalar that is read as a date by the caller; None when absent."""
        node = self._want(key, required=False)
        return node.value if isinstance(node, ScalarNode) else None if node is None else ""

    def flag(self, key: str, default: bool = False) -> bool:
        """A claim: `true` or `false`."""
        node = self._want(key, required=False)
        if node is None:
            return default
        if not isinstance(node, ScalarNode) or node.tag != f"{_TAG}bool":
            self.note(key, f"is {_describe(node)}, not a claim.", "Write true or false.")
            return default
        return str(node.value).lower() == "true"

    def integer(self, key: str, default: int, *, low: int, high: int, required: bool = False) -> int:
        """A whole number from `low` to `high`, both included."""
        node = self._want(key, required)
        if node is None:
            return default
        if not _is_number(node, _INTEGER):
            self.note(
                key, f"is {_describe(node)}, not a whole number.", f"Write a number from {low} to {high}."
            )
            return default
        value = int(node.value)
        if not low <= value <= high:
            self.note(key, f"is {value}.", f"Write a whole number from {low} to {high}.")
            return default
        return value

    def optional_integer(self, key: str, *, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`; None when absent."""
        return self.integer(key, low, low=low, high=high) if self.has(key) else None

    def decimal(self, key: str, default: Decimal, *, low: Decimal, high: Decimal) -> Decimal:
        """An exact decimal from `low` to `high`, never by way of a binary float."""
        node = self._want(key, required=False)
        if node is None:
            return default
        if not _is_number(node, _DECIMAL):
            self.note(
                key,
                f"is {_describe(node)}, not a number.",
                "Write plain digits, such as 0.053, without quotes.",
            )
            return default
        value = Decimal(node.value)
        if not low <= value <= high:
            self.note(key, f"is {node.value}.", f"Write a number from {low} to {high}.")
            return default
        return value

    def words(self, key: str) -> tuple[str, ...] | None:
        """A list of different words; None when absent."""
        node = self._want(key, required=False)
        if node is None:
            return None
        if not isinstance(node, SequenceNode):
            self.note(key, f"is {_describe(node)}, not a list.", "Write a list, such as [low, high].")
            return ()
        found: list[str] = []
        for item in node.value:
            if not isinstance(item, ScalarNode) or item.tag != f"{_TAG}str" or not item.value:
                problem = f"has {_describe(item)} where a word should stand."
                self.document.note(
                    item, self.at(key), problem, "Write words, in quotes if they look like numbers."
                )
            elif item.value in found:
                self.document.note(item, self.at(key), f"lists {item.value!r} twice.", "Keep one of the two.")
            else:
                found.append(item.value)
        return tuple(found)

    def choice(self, key: str, default: _Word, choices: Sequence[_Word]) -> _Word:
        """One of a closed set of words."""
        written = self.text(key)
        for choice in choices:
            if choice == written:
                return choice
        if written:
            known = ", ".join(choices)
            self.note(
                key, f"is {written!r}.", suggestion(written, choices, otherwise=f"Write one of: {known}")
            )
        return default

    def is_mapping(self, key: str) -> bool:
        """Whether the value is a mapping; notes nothing."""
        return isinstance(self._values.get(key), MappingNode)

    def section(self, key: str, *, required: bool = False) -> "Section | None":
        """The mapping under a key; None when it is absent or something else."""
        node = self._want(key, required)
        if node is None:
            return None
        if not isinstance(node, MappingNode):
            self.note(key, f"is {_describe(node)}, not a mapping.", "Write `key: value` lines below it.")
            return None
        return Section(self.document, node, self.at(key))

    def sections(self, key: str) -> Iterator["Section"]:
        """The mappings of a list, in order."""
        node = self._want(key, required=False)
        if node is None:
            return
        if not isinstance(node, SequenceNode):
            self.note(key, f"is {_describe(node)}, not a list.", "Start each entry with `- `.")
            return
        for index, item in enumerate(node.value):
            place = f"{self.at(key)}[{index}]"
            if isinstance(item, MappingNode):
                yield Section(self.document, item, place)
            else:
                self.document.note(
                    item, place, f"is {_describe(item)}, not a mapping.", "Write `key: value` lines."
                )

    def json(self, key: str) -> dict[str, Json]:
        """A mapping whose content somebody else will check; empty when absent."""
        section = self.section(key)
        if section is None:
            return {}
        return {
            name: _plain(self.document, section.at(name), section.value(name)) for name in section.names()
        }

    def value(self, key: str) -> Node:
        """The node under a key that is known to be there."""
        return self._values[key]

    def _ask(self, key: str) -> None:
        if key not in self._asked:
            self._asked.append(key)

    def _find(self, key: str) -> Node | None:
        node = self._values.get(key)
        return None if node is None or node.tag == f"{_TAG}null" else node

    def _want(self, key: str, required: bool) -> Node | None:
        self._ask(key)
        node = self._find(key)
        if node is None and required:
            self.note(key, "is missing.", f"Add `{key}:`.")
        return node


def suggestion(written: str, known: Collection[str], *, otherwise: str) -> str:
    """A fix for a word that is not known: the nearest known one, or `otherwise` as a sentence."""
    near = difflib.get_close_matches(written, known, n=1, cutoff=0.6)
    return f"Did you mean {str(near[0])!r}?" if near else f"{otherwise}."


def digest_form(node: Node) -> object:
    """A document as plain lists, in an order that does not depend on how its mappings were written."""
    match node:
        case MappingNode():
            return {str(key.value): digest_form(value) for key, value in node.value}
        case SequenceNode():
            return [digest_form(item) for item in node.value]
        case _:
            return [node.tag, node.value]


def _is_finite(root: Node) -> bool:
    values = 0
    level: list[Node] = [root]
    for _ in range(_MAX_DEPTH):
        values += len(level)
        if values > _MAX_VALUES:
            return False
        below: list[Node] = []
        for node in level:
            if isinstance(node, MappingNode):
                below.extend(value for _, value in node.value)
            elif isinstance(node, SequenceNode):
                below.extend(node.value)
        if not below:
            return True
        level = below
    return False


def _is_number(node: Node, form: re.Pattern[str]) -> bool:
    is_plain = isinstance(node, ScalarNode) and node.tag in {f"{_TAG}int", f"{_TAG}float"}
    return is_plain and form.fullmatch(node.value) is not None


def _describe(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.tag == f"{_TAG}str":
        return "a text"
    return f"`{node.value}`"


def _plain(document: Document, path: str, node: Node) -> Json:
    if isinstance(node, MappingNode):
        section = Section(document, node, path)
        return {name: _plain(document, section.at(name), section.value(name)) for name in section.names()}
    if isinstance(node, SequenceNode):
        return [_plain(document, f"{path}[{index}]", item) for index, item in enumerate(node.value)]
    value = str(node.value)
    match str(node.tag).removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return value.lower() == "true"
        case "int" if _INTEGER.fullmatch(value):
            return int(value)
        case "float" if _DECIMAL.fullmatch(value):
            return float(value)
        case _:
            return value
