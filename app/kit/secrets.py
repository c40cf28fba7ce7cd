"""Secrets that a lone process makes for itself: strong, kept in one private file, the same after a restart."""

import json
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

_MODE: Final = 0o600
# What examples, templates and tired people write. Whoever copies one shares it with the world. The first list gives
# a secret away wherever it stands in it, the second when there is nothing else but digits.
_TELLTALE: Final = (
    "changeit",
    "changeme",
    "changethis",
    "insecuresecret",
    "placeholder",
    "replaceme",
    "replacethis",
    "supersecret",
    "topsecret",
    "youradminkey",
    "yourapikey",
    "yoursecret",
)
_WELL_KNOWN: Final = (
    "0123456789",
    "1234567890",
    "12345678",
    "abcdef",
    "admin",
    "apikey",
    "darkroom",
    "default",
    "example",
    "insecure",
    "key",
    "password",
    "qwerty",
    "secret",
    "test",
)
_MIN_DISTINCT: Final = 6


class SecretsUnreadable(Exception):
    """The file of kept secrets cannot be read, written or understood; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSecrets:
    """What a process generated for itself. Its repr shows nothing of it."""

    api_key: str = field(repr=False)
    admin_key: str = field(repr=False)
    secret_key: str = field(repr=False)


def keep_secrets(path: Path) -> KeptSecrets:
    """Return the secrets kept at `path`, generating and keeping them the first time.

    The file is readable by its owner alone and appears whole. Of two processes that start at once, one makes the
    secrets and both use them.

    Raises:
        SecretsUnreadable: the file, or its folder, cannot be read or written, or holds something else.
    """
    kept = read_secrets(path)
    if kept is not None:
        return kept
    try:
        _write(path, _generate())
    except OSError as exc:
        raise SecretsUnreadable(
            f"Generated secrets cannot be kept in {str(path)!r} ({exc.strerror}). Make the folder writable, or "
            "set DARKROOM_DATA_DIR to another one."
        ) from exc
    return keep_secrets(path)


def read_secrets(path: Path) -> KeptSecrets | None:
    """Return the secrets kept at `path`; None when there is no such file.

    Raises:
        SecretsUnreadable: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        return KeptSecrets(**{name: _text(found[name]) for name in KeptSecrets.__slots__})
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SecretsUnreadable(
            f"The generated secrets in {str(path)!r} cannot be read ({exc.strerror}). Run as the user who owns "
            "the file, or set DARKROOM_DATA_DIR to another folder."
        ) from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise SecretsUnreadable(
            f"The file {str(path)!r} no longer holds the generated secrets. Restore it from a backup, or delete it "
            "to have new ones made; links and keys handed out before then stop working."
        ) from exc


def is_guessable(text: str) -> bool:
    """Whether a secret, however long, is one that others would try: a well-known default, or hardly any variety."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    if len(set(text)) < _MIN_DISTINCT:
        return True
    if any(word in letters for word in _TELLTALE):
        return True
    rest = letters
    for word in _WELL_KNOWN:
        rest = rest.replace(word, "")
    return rest != letters and not rest.strip("0123456789")


def _generate() -> KeptSecrets:
    return KeptSecrets(
        # `dk_` is what log redaction and secret scanners know a key by.
        api_key=f"dk_bootstrap_{secrets.token_hex(24)}",
        admin_key=f"dk_admin_bootstrap_{secrets.token_hex(24)}",
        secret_key=secrets.token_urlsafe(48),
    )


def _write(path: Path, made: KeptSecrets) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp opens with mode 0600, so the secrets are at no moment readable by others.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(made), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_MODE)
        # A link never replaces: whoever comes second keeps the secrets of the first.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a kept secret is a text")
    return value
