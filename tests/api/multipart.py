"""Multipart forms written by hand, so that every byte of them is the test's to choose."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file of a form; its name and type are what a client claims, and None for what it leaves out."""

    content: bytes
    media_type: str | None = "application/octet-stream"
    filename: str | None = "upload"


def multipart(*parts: tuple[str, str | File], boundary: str = "edge-of-a-form") -> tuple[bytes, str]:
    """Write a form in the order of its parts; returns the body and its content type."""
    body = bytearray()
    for name, value in parts:
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, File):
            body += b"" if value.filename is None else f'; filename="{value.filename}"'.encode()
            body += b"" if value.media_type is None else f"\r\nContent-Type: {value.media_type}".encode()
        body += b"\r\n\r\n" + (value.content if isinstance(value, File) else value.encode()) + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return bytes(body), f"multipart/form-data; boundary={boundary}"
