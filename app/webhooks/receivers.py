"""Whether events may be sent to a URL: asked when it is handed in, and again by the client itself at each delivery."""

from typing import Final

from app.kit.http import EgressDenied, GuardedClient, NoAnswer, check_url
from app.webhooks.errors import ReceiverRefused

URL_CHARS: Final = 2048
"""The longest URL that is kept; servers accept hardly any longer one."""


class Receivers:
    """Judges where events may be sent."""

    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    async def admit(self, url: str, *, param: str, must_resolve: bool) -> None:
        """Judge a URL and where it leads now.

        `must_resolve`: refuse a host without an address. A request is not refused for it, because name servers fail
        for moments, and its delivery is tried for a day.

        Raises:
            ReceiverRefused: nothing may be sent there; `param` names it.
        """
        check_receiver(url, param=param)
        try:
            await self._client.judge(url)
        except EgressDenied as exc:
            raise _refused("it leads to an address that may not be reached", param) from exc
        except NoAnswer as exc:
            if must_resolve:
                raise _refused("its host has no address", param) from exc


def check_receiver(url: str, *, param: str) -> None:
    """Judge a URL by its text alone.

    Raises:
        ReceiverRefused: nothing can be sent there; `param` names it.
    """
    if len(url) > URL_CHARS or not url.isprintable():
        raise _refused(f"it must have at most {URL_CHARS} characters, all of them printable", param)
    try:
        check_url(url)
    except EgressDenied as exc:
        raise _refused(str(exc), param) from exc


def _refused(reason: str, param: str) -> ReceiverRefused:
    message = f"Invalid {param!r}: {reason}. Webhooks are sent to public http and https addresses."
    return ReceiverRefused(message, param=param)
