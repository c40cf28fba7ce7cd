"""Connections that are reset behind the back of an answer: it was handed to the system, and the client may not have it.

A client that hangs up before it has read everything resets its connection; one that has read it does not.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, Final

from starlette.types import Scope

_IS_RESET: Final = "darkroom.is_reset"
_ACT: Final = "darkroom.on_reset"


def on_reset(scope: Scope, act: Callable[[], None]) -> None:
    """Have `act` called if the connection of this request is reset from now on, or has been; not after its next one."""
    state = scope.setdefault("state", {})
    if state.get(_IS_RESET):
        act()
    else:
        state[_ACT] = act


def tell_reset(state: MutableMapping[str, Any]) -> None:
    """Tell that a connection was reset; `state` is that of its last request's scope."""
    state[_IS_RESET] = True
    act = state.pop(_ACT, None)
    if act is not None:
        act()
