"""Fetch one file, once, whole or not at all: over https, its sha256 known beforehand.

However many processes want the file, one fetches it while the others wait; a process that is killed leaves no lock.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from genai_cli.data.base import DataError

ATTEMPTS = 3  # for each mirror
TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20


class _Retry(Exception):
    """A failure that may pass: worth another attempt."""


class _GiveUp(Exception):
    """A failure that stays: on to the next mirror."""


def download(
    urls: Sequence[str], path: Path, sha256: str, *, schemes: Sequence[str] = ("https",), backoff: float = 1.0
) -> Path:
    """Make `path` the file whose content has `sha256`, from the first of the mirrors `urls` that has it.

    `path` appears only once it is verified. `backoff`: seconds before the second attempt, doubled before the third.
    Raises DataError, saying what each mirror answered.
    """
    with file_lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return path
        failures = []
        for url in urls:
            try:
                return _fetch_with_retries(url, path, sha256, schemes, backoff)
            except _GiveUp as error:
                failures.append(f"{url}: {error}")
    raise DataError(f"{path.name} could not be downloaded; " + "; ".join(failures) + f"; or put it at {path} yourself")


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold `path` locked; wait for other processes that do. The system unlocks it when its holder dies."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "wb")  # noqa: SIM115  an error while it is held is not one of opening it
    except OSError as error:
        raise DataError(f"nothing can be downloaded into {path.parent}: {error.strerror}; set dataset.root") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_with_retries(url: str, path: Path, sha256: str, schemes: Sequence[str], backoff: float) -> Path:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch(url, path, sha256, schemes)
        except _Retry as error:
            if attempt == ATTEMPTS:
                raise _GiveUp(f"{error} ({ATTEMPTS} attempts)") from error
            time.sleep(backoff * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _fetch(url: str, path: Path, sha256: str, schemes: Sequence[str]) -> Path:
    partial = path.with_name(f".{path.name}.part")
    try:
        with _open(url, schemes) as response, open(partial, "wb") as file:
            digest = hashlib.sha256()
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            _check_length(response.headers.get("Content-Length"), file.tell())
            if digest.hexdigest() != sha256:
                raise _Retry(f"it sent something else (sha256 {digest.hexdigest()[:12]}..., not {sha256[:12]}...)")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        return path
    except urllib.error.HTTPError as error:
        kind = _Retry if error.code >= 500 or error.code == 429 else _GiveUp
        raise kind(f"HTTP status {error.code}, {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:  # URLError, a time-out and a lost connection are OSError
        raise _Retry(str(getattr(error, "reason", error)) or type(error).__name__) from error
    finally:
        partial.unlink(missing_ok=True)


def _check_length(announced: str | None, received: int) -> None:
    if announced is not None and received != int(announced):
        raise _Retry(f"it was cut off after {received:,} of {announced} bytes")


def _open(url: str, schemes: Sequence[str]) -> http.client.HTTPResponse:
    """Open `url`, following redirects to `schemes` only: never from https to http, ftp or a local file."""
    _check_scheme(url, schemes)

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request, file, code, message, headers, new_url):  # type: ignore[no-untyped-def]
            _check_scheme(new_url, schemes)
            return super().redirect_request(request, file, code, message, headers, new_url)

    request = urllib.request.Request(url, headers={"User-Agent": "genai"})
    return urllib.request.build_opener(Redirects).open(request, timeout=TIMEOUT)


def _check_scheme(url: str, schemes: Sequence[str]) -> None:
    if urlsplit(url).scheme not in schemes:
        raise _GiveUp(f"{url!r} is not {' or '.join(schemes)}")
