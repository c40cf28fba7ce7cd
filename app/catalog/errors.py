"""What the catalog raises: a file that cannot be used, and settings that a model cannot honour."""

from app.catalog.document import Mistake
from app.domain.errors import GatewayError, InvalidValue


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
