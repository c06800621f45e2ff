"""Why a URL can't be opened, in words that say what to do: FFmpeg's are few, and the same for many causes.

No answer here holds a user name, a password or a query.
"""

from __future__ import annotations

import errno
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

import av

from perceiverd.core.errors import Refused
from perceiverd.sources.specs import Url

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
"""What can be called before it is asked for media; the ports are those that FFmpeg takes where none is given."""
SECURE = ("rtsps", "https", "rtmps")
UNTRUSTED = "its certificate is not trusted"
CONNECT_S = 2.0
"""What a device may take to take a call. The kernel would double its patience while a network is cut."""


def unreached(spec: Url, *, secure: bool = False) -> str | None:
    """Call the device and hang up: what is wrong, or None where it takes the call. `secure` checks who it is, too."""
    parts = urlsplit(spec.url)
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    if scheme not in PORTS:
        return None
    port, name = parts.port or PORTS[scheme], f"[{host}]" if ":" in host else host
    trust: ssl.SSLContext | None = None
    if secure and scheme in SECURE and spec.verify:
        try:
            trust = ssl.create_default_context(cafile=spec.ca_file)
        except OSError as error:  # SSLError is one, for what is no PEM
            told = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
            return f"ca_file {spec.ca_file} cannot be used ({told}); name a PEM file that the service's user may read"
    try:
        with socket.create_connection((host, port), min(CONNECT_S, spec.open_timeout_s)) as line:
            if trust:
                with trust.wrap_socket(line, server_hostname=host):
                    pass
    except ssl.SSLCertVerificationError as error:
        return (
            f"{UNTRUSTED} ({error.verify_message}); put the authority that signed it, or the "
            "certificate itself where it is self-signed, into a file and name it in ca_file, or set verify = false"
        )
    except socket.gaierror:
        return f"the name {name} is not known; check its spelling and the name server, or write its address"
    except ConnectionRefusedError:
        return f"nobody listens at port {port} (connection refused); check the port, and that the device is on"
    except TimeoutError:
        return f"nothing at {name}, port {port}, takes a call; check that the device is on, its address and the network"
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return f"there is no way to {name} (no route to host); check its address, and the network"
        if isinstance(error, ssl.SSLError):
            return f"port {port} does not speak TLS ({error.reason}); check the port, or write {scheme[:-1]}://"
        return f"cannot be reached ({error.strerror}); check its address and the network"
    return None


def why(spec: Url, error: av.FFmpegError) -> tuple[str, Refused]:
    """Why opening this failed with that, and what to do; and whether another try can't mend it soon."""
    told = _why(spec, error)
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return told, "login"
    refused = isinstance(error, av.error.HTTPForbiddenError | av.error.HTTPNotFoundError) or told.startswith(UNTRUSTED)
    return told, "request" if refused else ""


def _why(spec: Url, error: av.FFmpegError) -> str:
    parts = urlsplit(spec.url)
    match error:
        case av.error.HTTPUnauthorizedError():
            if parts.username is None:
                return f"wants a user name and a password (401); write {parts.scheme}://USER:${{PASSWORD}}@..."
            return "does not accept this user name and password (401); check both"
        case av.error.HTTPForbiddenError():
            return "refuses this user (403); check what the user may do on the device"
        case av.error.HTTPNotFoundError():
            return f"has nothing at {_path(parts)} (404); look up the path in the device's manual or settings"
        case av.error.HTTPError():
            return f"answers with an error ({_words(error)}); check the URL, and the device's own log"
        case av.error.ProtocolNotFoundError():
            return f"cannot be opened: this FFmpeg does not know {parts.scheme}://"
    if told := unreached(spec, secure=True):
        return told
    if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        speaks = parts.scheme.lower().removesuffix("s").upper()
        return f"does not answer as {speaks} does, or sends no media that FFmpeg knows; check the port and the path"
    return f"cannot be opened ({_words(error)}); check the URL, the device and the network"


def _path(parts: SplitResult) -> str:
    return parts.path or "/"


def _words(error: av.FFmpegError) -> str:
    """FFmpeg's words without the address, which may hold a password."""
    return error.strerror or type(error).__name__
