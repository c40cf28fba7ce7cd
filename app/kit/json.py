"""The type of a parsed JSON document, for values whose inner shape somebody else decides."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union

# A union with `|` cannot name itself before it exists.
Json: TypeAlias = Union[Mapping[str, "Json"], Sequence["Json"], str, int, float, bool, None]  # noqa: UP007
JsonObject: TypeAlias = dict[str, Json]
