"""Settings for a command: as `app.settings` reads them, with mistakes as the sentences a command ends with."""

from collections.abc import Iterable

from pydantic import SecretStr

from app.cli.client import Gateway
from app.cli.errors import CommandFailed, KeyRefused
from app.settings import ClientSettings, Settings, SettingsInvalid


def load_settings(*, make_secrets: bool = True) -> Settings:
    """Read the settings of a process; as `Settings.load`.

    Raises:
        CommandFailed: the settings have mistakes; all of them are told.
    """
    try:
        return Settings.load(make_secrets=make_secrets)
    except SettingsInvalid as exc:
        raise _told(exc.mistakes) from exc


def connect(base_url: str | None, api_key: str | None) -> Gateway:
    """Become a client of the gateway, with the bootstrap key unless another one is given.

    Raises:
        CommandFailed: the settings have mistakes, or name no key.
    """
    settings = _client_settings()
    key = api_key or _text(settings.api_key)
    return Gateway(base_url or settings.public_url, _given(key, "DARKROOM_API_KEY", "--api-key"))


def connect_as_admin(base_url: str | None, admin_key: str | None) -> Gateway:
    """As `connect`, with an admin key, and where DARKROOM_ADMIN_LISTEN says that operators are served.

    Raises:
        CommandFailed: the settings have mistakes, or name no key.
    """
    settings = _client_settings()
    key = admin_key or _text(settings.admin_key)
    return Gateway(base_url or settings.admin_url, _given(key, "DARKROOM_ADMIN_KEY", "--api-key"))


def _client_settings() -> ClientSettings:
    try:
        return ClientSettings.load()
    except SettingsInvalid as exc:
        raise _told(exc.mistakes) from exc


def _given(key: str | None, variable: str, option: str) -> str:
    if key is None:
        raise KeyRefused(
            f"There is no key to use. Give one with {option}, set {variable}, or run this in the folder of a gateway "
            "that has made its own."
        )
    return key


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _told(mistakes: Iterable[str]) -> CommandFailed:
    return CommandFailed("\n".join(["The settings cannot be used:", *(f"  {each}" for each in mistakes)]))
