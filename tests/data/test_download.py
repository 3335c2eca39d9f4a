"""Downloads: whole or not at all, from a server on this machine that misbehaves in every known way."""

import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from genai_cli.data import shakespeare
from genai_cli.data.base import DataError
from genai_cli.data.download import download
from genai_cli.data.shakespeare import Shakespeare

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers the n-th request with the n-th of `answers`, and the last for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = ["whole"]
        self.hits = 0

    def url(self, name: str = "input.txt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        answer = self.server.answers[min(self.server.hits, len(self.server.answers) - 1)]
        self.server.hits += 1
        status, body, headers = 200, CONTENT, {"Content-Length": str(len(CONTENT))}
        match answer:
            case "cut" | "hang":
                body = CONTENT[: len(CONTENT) // 2]
            case "wrong":
                body = CONTENT[::-1]
            case "html":
                body = b"<html>Please log in</html>"
                headers = {"Content-Length": str(len(body)), "Content-Type": "text/html"}
            case int():
                status, body, headers = answer, b"", {"Content-Length": "0"}
            case str() if answer.startswith("redirect "):
                status, body, headers = 302, b"", {"Location": answer.removeprefix("redirect "), "Content-Length": "0"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if answer == "hang":
            time.sleep(60)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "input.txt"


def fetch(server: Server, path, *more_urls: str):
    return download([server.url(), *more_urls], path, SHA256, schemes=("http",), backoff=0.01)


def left_behind(path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("answers", "hits"),
    [
        (["whole"], 1),
        (["cut", "whole"], 2),
        (["wrong", "whole"], 2),
        (["html", "whole"], 2),
        ([503, 503, "whole"], 3),
    ],
)
def test_passing_failures_are_overcome(server, path, answers, hits):
    server.answers = answers
    assert fetch(server, path).read_bytes() == CONTENT
    assert (server.hits, left_behind(path)) == (hits, ["input.txt"])


@pytest.mark.parametrize(
    ("answer", "hits", "words"),
    [
        ("cut", 3, "cut off after 128,000 of 256000 bytes"),
        ("wrong", 3, "sent something else"),
        ("html", 3, "sent something else"),
        (503, 3, "HTTP status 503"),
        (404, 1, "HTTP status 404"),
        ("redirect file:///etc/passwd", 1, "file:///etc/passwd"),
        ("redirect ftp://127.0.0.1/x", 1, "ftp://127.0.0.1/x' is not http"),
    ],
)
def test_lasting_failures_are_told_and_leave_nothing(server, path, answer, hits, words):
    server.answers = [answer]
    with pytest.raises(DataError, match=words) as error:
        fetch(server, path)
    assert server.url() in str(error.value) and f"put it at {path}" in str(error.value)
    assert (server.hits, left_behind(path)) == (hits, [])


def test_second_mirror_is_used_when_the_first_has_nothing(server, path):
    server.answers = [404, "whole"]
    assert fetch(server, path, server.url("mirror")).read_bytes() == CONTENT


def test_redirect_within_the_scheme_is_followed(server, path):
    server.answers = [f"redirect {server.url('elsewhere')}", "whole"]
    assert fetch(server, path).read_bytes() == CONTENT


def test_only_https_is_spoken(server, path):
    with pytest.raises(DataError, match="is not https"):
        download([server.url()], path, SHA256)
    assert server.hits == 0


def test_file_that_is_there_is_not_fetched(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert fetch(server, path).read_bytes() == b"mine"
    assert server.hits == 0


def test_shakespeare_is_downloaded_below_its_root(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shakespeare, "URLS", [server.url()])
    monkeypatch.setattr(shakespeare, "SHA256", SHA256)
    monkeypatch.setattr(shakespeare, "download", functools.partial(download, schemes=("http",)))
    for _ in range(2):
        dataset = Shakespeare(root=str(tmp_path), download=True, tokenizer="byte")
        assert bytes(dataset.corpus.tokens.tolist()) == CONTENT
    assert server.hits == 1 and (tmp_path / "tinyshakespeare" / "input.txt").read_bytes() == CONTENT


def test_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=rf"nothing can be downloaded into {tmp_path}/file/cache"):
        fetch(server, tmp_path / "file" / "cache" / "input.txt")


def start(server: Server, path) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(server, path))
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children do nothing but download
def test_eight_processes_download_once(server, path):
    processes = [start(server, path) for _ in range(8)]
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0] * 8
    assert (server.hits, path.read_bytes()) == (1, CONTENT)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_process_leaves_no_lock_and_no_file(server, path):
    server.answers = ["hang", "whole"]
    process = start(server, path)
    deadline = time.monotonic() + 20
    while not list(path.parent.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert not path.exists()
    assert fetch(server, path).read_bytes() == CONTENT
    assert left_behind(path) == ["input.txt"]
