"""What an upstream made, before it is priced and kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the vendor reported them, over all pictures of one attempt."""

    text_input: int = 0
    cached_text_input: int = 0
    """The part of `text_input` billed at the cached rate."""
    image_input: int = 0
    cached_image_input: int = 0
    """The part of `image_input` billed at the cached rate."""
    text_output: int = 0
    image_output: int = 0

    @property
    def input_tokens(self) -> int:
        """All input tokens."""
        return self.text_input + self.image_input

    @property
    def output_tokens(self) -> int:
        """All output tokens."""
        return self.text_output + self.image_output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            text_input=self.text_input + other.text_input,
            cached_text_input=self.cached_text_input + other.cached_text_input,
            image_input=self.image_input + other.image_input,
            cached_image_input=self.cached_image_input + other.cached_image_input,
            text_output=self.text_output + other.text_output,
            image_output=self.image_output + other.image_output,
        )
