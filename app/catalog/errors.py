"""What the catalog raises: a file that cannot be used, and settings that a model cannot honour."""

from dataclasses import dataclass

from app.domain.errors import GatewayError, InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong with a file, where, and what would be right."""

    file: str
    line: int | None
    """Counted from 1; None when the file could not be read at all."""
    key: str
    """Dotted, such as `models.gpt-image-2.routes[0].weight`; empty for the file as a whole."""
    problem: str
    fix: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = f"{self.key}: " if self.key else ""
        return f"{place}: {subject}{self.problem} {self.fix}"


class CatalogInvalid(Exception):
    """The catalog file cannot be used; every mistake is listed with its place and its fix."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class UnusableSetting(InvalidValue):
    """A value of the right form that the model cannot draw: OpenAI's `image_generation_user_error`."""

    type = "image_generation_user_error"


class UnusableMask(GatewayError):
    """A mask that does not fit the picture it should apply to."""

    code = "invalid_image"
    type = "image_generation_user_error"
