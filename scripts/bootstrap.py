"""Makes .venv ready for one goal: `python bootstrap.py run|dev`.

This file only looks at the interpreter, in words that Python 2.7 understands too; the work is in
environment.py. Nothing outside the standard library is needed.
"""

from __future__ import print_function

import sys

OLDEST = (3, 11)


def main():
    """Refuse an unfit interpreter with one plain sentence, else build the environment."""
    if sys.version_info < OLDEST:
        print(
            "Darkroom needs Python %d.%d or newer, and %s is Python %d.%d.%d. Install a newer one and "
            "make sure that `python3` finds it, or name it: `make PYTHON=/path/to/python3.11 ...`."
            % (OLDEST + (sys.executable,) + tuple(sys.version_info[:3])),
            file=sys.stderr,
        )
        return 1
    try:
        import ensurepip  # noqa: F401, PLC0415 - only whether it is there
        import venv  # noqa: F401, PLC0415 - only whether it is there
    except ImportError:
        print(
            "Darkroom builds a virtual environment, and %s comes without the module for it. On Debian "
            "or Ubuntu: `apt-get install python%d.%d-venv`; elsewhere install the full Python."
            % ((sys.executable,) + tuple(sys.version_info[:2])),
            file=sys.stderr,
        )
        return 1
    import environment  # noqa: PLC0415 - its syntax is newer than this file's

    return environment.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
