"""The Dockerfile as a list of stages and instructions."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """What follows the name, split as a shell would."""
        return shlex.split(self.text)


@dataclass(slots=True)
class Stage:
    """What stands between one FROM and the next."""

    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of one name, in order."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> str:
        """The text of the last instruction of a name: the one that holds."""
        return self.all(name)[-1].text

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        words = [word for instruction in self.all("ENV") for word in instruction.words]
        return dict(word.split("=", 1) for word in words)

    def copied(self) -> list[str]:
        """The sources that COPY takes from the repository."""
        return [
            source
            for instruction in self.all("COPY")
            if not instruction.text.startswith("--from")
            for source in instruction.words[:-1]
        ]


def stages() -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage, and the stages."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, lines):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append(Stage(rest.split()[0]))
        elif found:
            found[-1].instructions.append(Instruction(name, rest.strip()))
        else:
            argument, _, value = rest.partition("=")
            arguments[argument] = value
    return arguments, found
