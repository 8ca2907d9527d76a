"""Downloads, from a server on this machine that cuts, lies and redirects."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rootflow.data.download import Source, default_root, fetch, fetch_archive
from rootflow.errors import DataError

CONTENT = bytes(range(256)) * 400
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Answers by the path: /whole, /cut (half, then a broken connection), /short, /redirect ..."""

    asked: list[tuple[str, str | None]]
    content = CONTENT
    takes_ranges = True

    def do_GET(self) -> None:
        kind, wanted = self.path.split("/")[1], self.headers["Range"]
        self.asked.append((kind, wanted))
        if kind == "missing":
            return self.send_error(404)
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['X-To'] or 'example.invalid'}/whole/file.bin")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.takes_ranges else 0
        self.send_response(206 if start else 200)
        content = self.content[start:] if kind != "short" else self.content[:100]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:HALF] if kind == "cut" and start == 0 else content)
        return None

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def handler() -> type[Handler]:
    class Own(Handler):
        asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    return Own


@pytest.fixture
def address(handler: type[Handler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def source(url: str, content: bytes = CONTENT) -> Source:
    return Source(url, hashlib.sha256(content).hexdigest(), len(content))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_fetched_and_its_progress_told(address: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(
        source(f"{address}/whole/file.bin"), tmp_path / "new", progress=lambda *done: told.append(done)
    )
    assert path == tmp_path / "new" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert files(tmp_path) == ["new", "new/file.bin"]


def test_a_cut_connection_is_taken_up_where_it_broke(
    address: str, handler: type[Handler], tmp_path: Path
) -> None:
    assert fetch(source(f"{address}/cut/file.bin"), tmp_path).read_bytes() == CONTENT
    assert handler.asked == [("cut", None), ("cut", f"bytes={HALF}-")]


def test_a_server_without_ranges_is_asked_a_few_times_and_then_given_up(
    address: str, handler: type[Handler], tmp_path: Path
) -> None:
    handler.takes_ranges = False
    with pytest.raises(DataError, match="can't be downloaded"):
        fetch(source(f"{address}/cut/file.bin"), tmp_path)
    assert len(handler.asked) == 6
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("whole", CONTENT[:-1] + b"?", "its sha256 is .* and should be"),
        ("short", CONTENT, "100 bytes came where 102,400 were expected"),
        ("whole", CONTENT[:-1], "more than the 102,399 bytes expected came"),
        ("missing", CONTENT, "Not Found"),
        ("redirect", CONTENT, "http://example.invalid/whole/file.bin is not https"),
    ],
)
def test_what_is_not_the_file_is_refused_and_nothing_left(
    address: str, tmp_path: Path, kind: str, content: bytes, reason: str
) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(DataError, match=reason) as caught:
        fetch(source(f"{address}/{kind}/file.bin", content), folder)
    assert f"{address}/{kind}/file.bin can't be downloaded to {folder / 'file.bin'}" in str(caught.value)
    assert f"put it into {folder}" in str(caught.value)
    assert files(tmp_path) == []


@pytest.mark.parametrize("url", ["http://example.invalid/f", "ftp://example.invalid/f", "file:///etc/hosts"])
def test_only_https_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="is not https, and rootflow fetches nothing else"):
        fetch(source(url), tmp_path)


def test_without_a_network_it_fails_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(DataError, match="Connection refused"):
            fetch(source(f"http://127.0.0.1:{closed.getsockname()[1]}/f"), tmp_path / "new")
    assert time.monotonic() - began < 5
    assert files(tmp_path) == []


def test_a_file_that_is_there_is_replaced_only_by_a_good_one(address: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_text("old")
    with pytest.raises(DataError):
        fetch(source(f"{address}/short/file.bin"), tmp_path)
    assert (tmp_path / "file.bin").read_text() == "old"


def archive(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


def test_an_archive_becomes_its_folder_and_nothing_else(
    address: str, handler: type[Handler], tmp_path: Path
) -> None:
    handler.content = archive(["set/a.bin", "set/b.bin", "elsewhere/c.bin"])
    folder = fetch_archive(
        source(f"{address}/whole/set.tar.gz", handler.content), tmp_path / "root", folder="set"
    )
    assert folder == tmp_path / "root" / "set"
    assert files(tmp_path) == ["root", "root/set", "root/set/a.bin", "root/set/b.bin"]
    assert (folder / "a.bin").read_text() == "hello"


@pytest.mark.parametrize("has_filter", [True, False])
@pytest.mark.parametrize("names", [["other/a.bin"], ["../outside.bin"], ["set/../../outside.bin"]])
def test_an_archive_that_is_not_what_it_should_be_leaves_nothing(
    address: str,
    handler: type[Handler],
    tmp_path: Path,
    names: list[str],
    has_filter: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_filter:  # as before Python 3.11.4
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    handler.content = archive(names)
    with pytest.raises(DataError, match=r"set\.tar\.gz"):
        fetch_archive(source(f"{address}/whole/set.tar.gz", handler.content), tmp_path / "root", folder="set")
    assert files(tmp_path) == []


def test_the_default_root_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTFLOW_DATA", "~/data")
    assert default_root() == Path.home() / "data"
    monkeypatch.delenv("ROOTFLOW_DATA")
    assert default_root() == Path.home() / ".cache" / "rootflow" / "datasets"
