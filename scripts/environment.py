"""Builds .venv from the hashed requirement files, and does nothing when it is already right.

uv does the installing because pip takes minutes for the same list; uv itself comes hash-pinned through pip, and
where it cannot work (no build for the platform, a mirror that only pip is told about) pip does all of it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TOOLS = ROOT / "requirements" / "bootstrap.txt"

# What each goal installs. "dev" holds everything of "run" in the same versions, so both share one environment.
GOALS = {"run": "runtime.txt", "dev": "dev.txt"}


class InstallFailed(Exception):
    """An installer ended with an error; its output is the message."""


def main(arguments: Sequence[str]) -> int:
    """Make .venv fit for the goal named on the command line; 0 when it is."""
    if len(arguments) != 1 or arguments[0] not in GOALS:
        print(f"usage: bootstrap.py {'|'.join(GOALS)}", file=sys.stderr)
        return 2
    # Two makes in one folder take turns instead of installing over each other.
    with (ROOT / "requirements").joinpath("runtime.txt").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        return prepare(arguments[0])


def prepare(goal: str) -> int:
    """Install what the goal lacks; 0 when the environment is ready."""
    if is_ready(goal) or (goal == "run" and is_ready("dev")):
        return 0
    requirements = ROOT / "requirements" / GOALS[goal]
    try:
        if not fits_interpreter():
            print(f"Creating .venv with Python {sys.version.split()[0]} ...", flush=True)
            shutil.rmtree(VENV, ignore_errors=True)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
        print(
            f"Installing requirements/{requirements.name}: a minute at most on a usual connection ...",
            flush=True,
        )
        install(requirements)
    except (InstallFailed, OSError, subprocess.CalledProcessError) as exc:
        print(f"The environment could not be built.\n{exc}", file=sys.stderr)
        print("If the network was at fault, the same command goes on from where it stopped.", file=sys.stderr)
        return 1
    stamp(goal).write_text(fingerprint(goal), encoding="ascii")
    return 0


def is_ready(goal: str) -> bool:
    """Whether .venv was built for this goal from exactly these files by this interpreter."""
    mark = stamp(goal)
    return PYTHON.exists() and mark.exists() and mark.read_text(encoding="ascii") == fingerprint(goal)


def fits_interpreter() -> bool:
    """Whether .venv exists and was made by the same Python line as this one."""
    config = VENV / "pyvenv.cfg"
    if not (PYTHON.exists() and config.exists()):
        return False
    line = f"version = {sys.version_info[0]}.{sys.version_info[1]}."
    return line in config.read_text(encoding="utf-8")


def stamp(goal: str) -> Path:
    """The file that remembers what .venv was built from."""
    return VENV / f".darkroom-{goal}"


def fingerprint(goal: str) -> str:
    """Changes whenever the environment would come out differently."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = (
        json.dumps([project["build-system"], project["project"]], sort_keys=True).encode(),
        TOOLS.read_bytes(),
        (ROOT / "requirements" / GOALS[goal]).read_bytes(),
        repr(sys.version_info[:2]).encode(),
        str(ROOT).encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install(requirements: Path) -> None:
    """Install the tools, the list and the project itself into .venv, every file checked against its hash.

    Raises:
        InstallFailed: neither installer managed.
    """
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-q", "install")
    uv = (str(VENV / "bin" / "uv"), "-q", "pip", "install", "--python", str(PYTHON))
    listed = ("--require-hashes", "-r", str(requirements))
    itself = ("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    run((*pip, "--require-hashes", "-r", str(TOOLS)))
    try:
        try:
            run((*uv, *listed))
        except InstallFailed:
            # A proxy that signs for others is known to the system, not to uv's own list of authorities.
            run((*uv, "--system-certs", *listed))
    except InstallFailed as exc:
        print(f"uv could not install everything; pip tries, which takes longer. uv said:\n{exc}", flush=True)
        run((*pip, *listed))
    run((*pip, *itself))


def run(command: Sequence[str]) -> None:
    """Run a command to its end; its output is shown only when it fails.

    Raises:
        InstallFailed: it did not end with 0, or could not be started.
    """
    surroundings = {
        name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONHOME"}
    }
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    except OSError as exc:
        raise InstallFailed(str(exc)) from exc
    if done.returncode:
        raise InstallFailed((done.stdout + done.stderr).strip())
