"""TLS as a client: both sides' certificates, from PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer that verifies the certificate and the host's name, against `ca_file` (PEM) alone when it is given,
    else against the system's authorities. OSError when the file can't be read or holds no certificate."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def check_ca_file(file: Path) -> None:
    """ValueError, with the reason, where `tls_context` could not use it."""
    try:
        tls_context(file)
    except OSError as error:
        words = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"{file}: {words}") from None


def show_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Let the context show it to who asks for one. The key is not encrypted, and stands in the certificate's file if it has none of its
    own. ValueError, with the file and the reason, where they can't be used."""
    for file in filter(None, (certificate, key)):
        try:
            file.open().close()
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}") from None
    try:
        context.load_cert_chain(
            certificate, key, password=""
        )  # without one, an encrypted key would be asked for at the terminal
    except ssl.SSLError:
        files = f"{certificate} and {key}" if key else f"{certificate}"
        raise ValueError(f"{files}: no certificate with its key, unencrypted (PEM)") from None
