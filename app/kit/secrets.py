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
# Of what examples and templates put where a secret belongs. A text made of nothing else is shared with the world.
# No word begins another, so that there is one way to read a text.
_PLACEHOLDER: Final = re.compile(
    "(?:1234|admin|change|default|example|here|insecure|it|key|me|pass|placeholder|please|replace|secret|super"
    "|this|top|word|your)+"
)


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
    """Whether a secret, however long, is one character over and over, or a placeholder of templates."""
    letters = re.sub(r"[^a-z0-9]", "", text.lower())
    return len(set(text)) == 1 or _PLACEHOLDER.fullmatch(letters) is not None


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
