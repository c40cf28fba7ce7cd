"""How a command ends when it cannot do what was asked: one plain sentence and an exit code, never a traceback."""


class CommandFailed(Exception):
    """The command could not do what was asked. `exit_code` is what scripts see."""

    exit_code = 1


class UsageMistake(CommandFailed):
    """What was asked makes no sense, or the gateway refuses it as wrong."""

    exit_code = 2


class GatewayUnreachable(CommandFailed):
    """Nothing that speaks like Darkroom answers at the address."""

    exit_code = 3


class KeyRefused(CommandFailed):
    """There is no key to use, or the gateway does not accept it."""

    exit_code = 4


class LeftWaiting(CommandFailed):
    """Ctrl-C while a job goes on without us."""

    exit_code = 130
