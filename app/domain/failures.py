"""Why an attempt made no picture: the closed list of kinds, and what each says about money."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final


class FailureClass(StrEnum):
    """Whether an attempt that failed may have been paid for."""

    SAFE = "safe"
    """Nothing was bought; another route may be asked."""
    AMBIGUOUS = "ambiguous"
    """Bytes left and no conclusive answer came: it may have been bought."""
    FINAL = "final"
    """The request itself is at fault; asking elsewhere would not help."""


class FailureKind(StrEnum):
    """Why an attempt made no picture."""

    INVALID = "invalid"
    """The vendor says that the request is wrong."""
    REFUSED = "refused"
    """The vendor's content policy forbids the request."""
    UNSUPPORTED = "unsupported"
    """This vendor lacks the model or a parameter."""
    CREDENTIALS = "credentials"
    """Our key or account is not accepted."""
    FUNDS = "funds"
    """Our account at the vendor has no money or quota left."""
    BUSY = "busy"
    """The vendor limits our rate or has no capacity."""
    DOWN = "down"
    """The vendor could not be reached, or says in its own form that it failed."""
    TIMED_OUT = "timed_out"
    """Bytes left and no answer came in time, or the connection broke."""
    GARBLED = "garbled"
    """An answer came that settles nothing."""


CLASS_OF: Final[dict[FailureKind, FailureClass]] = {
    FailureKind.INVALID: FailureClass.FINAL,
    FailureKind.REFUSED: FailureClass.FINAL,
    FailureKind.UNSUPPORTED: FailureClass.SAFE,
    FailureKind.CREDENTIALS: FailureClass.SAFE,
    FailureKind.FUNDS: FailureClass.SAFE,
    FailureKind.BUSY: FailureClass.SAFE,
    FailureKind.DOWN: FailureClass.SAFE,
    FailureKind.TIMED_OUT: FailureClass.AMBIGUOUS,
    FailureKind.GARBLED: FailureClass.AMBIGUOUS,
}


class UpstreamFailure(Exception):
    """An upstream made no picture.

    `detail` is a short sentence of ours for the attempt log: never the vendor's body, a key or a prompt.
    `param` is the request field that the vendor blames, where it names one.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.param = param
        self.status = status

    @property
    def failure_class(self) -> FailureClass:
        """What this failure says about money."""
        return CLASS_OF[self.kind]

    def without(self, clean: Callable[[str], str]) -> "UpstreamFailure":
        """The same failure with its sentence cleaned, and blaming no field whose name had to be."""
        param = self.param if self.param is None or clean(self.param) == self.param else None
        return UpstreamFailure(
            self.kind, clean(self.detail), retry_after_s=self.retry_after_s, param=param, status=self.status
        )
