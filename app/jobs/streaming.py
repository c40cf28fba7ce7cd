"""One attempt's answer that comes as events: coarse pictures are shown at once, finished ones added up."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import reduce

from app.domain.failures import FailureKind, UpstreamFailure
from app.upstreams.contract import Adapter, Finished, Partial, ServerEvent, StreamingAdapter


class Stream:
    """Takes the events of one answer in their order."""

    def __init__(self, adapter: Adapter, show: Callable[[Partial], Awaitable[None]]) -> None:
        self._adapter = adapter
        self._show = show
        self._finished: list[Finished] = []

    @property
    def has_pictures(self) -> bool:
        """Whether a finished picture came."""
        return bool(self._finished)

    async def take(self, event: ServerEvent) -> None:
        """Take the next event.

        Raises:
            UpstreamFailure: it says that no picture will come.
        """
        if not isinstance(self._adapter, StreamingAdapter):
            raise UpstreamFailure(
                FailureKind.GARBLED, "it answered with events, which this vendor never does"
            )
        read = self._adapter.read_event(event)
        if isinstance(read, Partial):
            await self._show(read)
        elif read is not None:
            self._finished.append(read)

    def outcome(self) -> Finished:
        """Everything that the stream brought, as one answer.

        Raises:
            UpstreamFailure: the stream ended without a picture, so it may have been paid for.
        """
        if not self._finished:
            raise UpstreamFailure(FailureKind.TIMED_OUT, "its stream ended before a picture came")
        return reduce(_joined, self._finished)


def _joined(first: Finished, second: Finished) -> Finished:
    usage = first.usage + second.usage if first.usage and second.usage else first.usage or second.usage
    return replace(first, pictures=first.pictures + second.pictures, usage=usage)
