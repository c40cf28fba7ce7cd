"""What the asset room raises: storage that fails, pictures that are no pictures, inputs that are refused."""

from app.domain.errors import GatewayError


class StorageUnavailable(GatewayError):
    """Storage did not take or give a picture: unreachable, full or not writable. The cause is chained."""

    status = 500
    code = "internal_error"
    type = "server_error"


class StorageFull(GatewayError):
    """Storage could not take the pictures of another job; nothing was bought."""

    status = 503
    code = "storage_full"
    type = "server_error"
    should_retry = True


class AssetMissing(GatewayError):
    """Storage holds nothing under this key: it was deleted, or lost."""

    status = 404
    code = "file_not_found"


class KeyRefused(ValueError):
    """A storage key that is not one of ours, or that leads out of the storage. A bug, or somebody's attempt."""


class PictureBroken(Exception):
    """A file is not one whole picture in a format that we know.

    From an upstream this is an answer that settles nothing; from a client it becomes `InvalidImage`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """What is wrong with the file, as the end of a sentence: "is cut off"."""


class InvalidImage(GatewayError):
    """An input picture that nothing can use."""

    code = "invalid_image"


class UnsupportedFile(GatewayError):
    """An input file of a type that no model takes."""

    code = "unsupported_file_mimetype"


class ImageTooLarge(GatewayError):
    """An input picture with more bytes than the limit."""

    status = 413
    code = "request_too_large"


class InvalidUrl(GatewayError):
    """A link in a request that cannot be followed; why is not told, for it could be used to look around."""

    code = "invalid_url"


class MissingFile(GatewayError):
    """A file id in a request that the team has not, or has no longer."""

    status = 404
    code = "file_not_found"
