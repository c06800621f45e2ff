"""Why a URL cannot be opened, and what to do: FFmpeg's own messages are few, and the same for many causes.

No text here contains a user name, a password or a query. Knows nothing of decoding.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

import av

from perceiverd.core.errors import Refused
from perceiverd.sources.specs import Url

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
"""Schemes over TCP, which we can connect to before we request media, with FFmpeg's default port for each."""
SECURE = ("rtsps", "https", "rtmps")
UNTRUSTED = "its certificate is not trusted"
CONNECT_S = 2.0
"""How long a device may take to accept a connection. The kernel would wait longer and longer while a network is cut."""
DISCARD = "127.0.0.1:9"
"""The discard port of this machine: nothing answers there, and the test of a scheme needs no answer."""


def unsupported(schemes: Iterable[str], timeout_s: float = 0.5) -> tuple[str, ...]:
    """The URL schemes that the installed FFmpeg cannot open. Tries each on this machine, at most `timeout_s` long."""
    return tuple(scheme for scheme in schemes if not _is_supported(scheme, timeout_s))


def unreachable(spec: Url, *, secure: bool = False) -> str | None:
    """Connect to the device and hang up: what is wrong, or None if it accepts. `secure` also checks its certificate."""
    parts = urlsplit(spec.url)
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    if scheme not in PORTS:
        return None
    port, name = parts.port or PORTS[scheme], f"[{host}]" if ":" in host else host
    trust: ssl.SSLContext | None = None
    if secure and scheme in SECURE and spec.verify:
        try:
            trust = ssl.create_default_context(cafile=spec.ca_file)
        except OSError as error:  # SSLError is an OSError: the file is no PEM
            reason = "it contains no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            return f"ca_file {spec.ca_file} cannot be used ({reason}); name a PEM file that the service's user may read"
    try:
        with socket.create_connection((host, port), min(CONNECT_S, spec.open_timeout_s)) as connection:
            if trust:
                with trust.wrap_socket(connection, server_hostname=host):
                    pass
    except ssl.SSLCertVerificationError as error:
        return (
            f"{UNTRUSTED} ({error.verify_message}); put the authority that signed it, or the certificate itself if it "
            "is self-signed, into a file and name that in ca_file, or set verify = false"
        )
    except socket.gaierror:
        return f"the name {name} is not known; check its spelling and the name server, or write its address"
    except ConnectionRefusedError:
        return f"nothing listens at port {port} (connection refused); check the port, and that the device is on"
    except TimeoutError:
        return f"no answer from {name}, port {port}; check that the device is on, its address and the network"
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return f"no route to {name}; check its address and the network"
        if isinstance(error, ssl.SSLError):
            return f"port {port} does not speak TLS ({error.reason}); check the port, or write {scheme[:-1]}://"
        return f"cannot be reached ({error.strerror}); check its address and the network"
    return None


def why(spec: Url, error: av.FFmpegError) -> tuple[str, Refused]:
    """Why opening this URL failed and what to do; and whether the device refused, so that another try will not help."""
    text = _why(spec, error)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return text, "login"
    refused = isinstance(error, av.error.HTTPForbiddenError | av.error.HTTPNotFoundError) or text.startswith(UNTRUSTED)
    return text, "request" if refused else ""


def _is_supported(scheme: str, timeout_s: float) -> bool:
    try:
        with av.open(f"{scheme}://{DISCARD}", timeout=(timeout_s, timeout_s)):
            return True
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError):
        return True  # refused, no answer or a time-out: FFmpeg knows the scheme


def _why(spec: Url, error: av.FFmpegError) -> str:
    parts = urlsplit(spec.url)
    match error:
        case av.error.HTTPUnauthorizedError():
            if parts.username is None:
                return f"wants a user name and a password (401); write {parts.scheme}://USER:${{PASSWORD}}@..."
            return "does not accept this user name and password (401); check both"
        case av.error.HTTPForbiddenError():
            return "refuses this user (403); check the user's rights on the device"
        case av.error.HTTPNotFoundError():
            return f"has nothing at {_path(parts)} (404); look up the path in the device's manual or settings"
        case av.error.HTTPError():
            return f"answers with an error ({_message(error)}); check the URL and the device's own log"
        case av.error.ProtocolNotFoundError():
            return f"cannot be opened: this FFmpeg does not know {parts.scheme}://"
    if text := unreachable(spec, secure=True):
        return text
    if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        protocol = parts.scheme.lower().removesuffix("s").upper()
        return f"does not speak {protocol}, or sends no media that FFmpeg knows; check the port and the path"
    return f"cannot be opened ({_message(error)}); check the URL, the device and the network"


def _path(parts: SplitResult) -> str:
    return parts.path or "/"


def _message(error: av.FFmpegError) -> str:
    """FFmpeg's message without the address, which may hold a password."""
    return error.strerror or type(error).__name__
