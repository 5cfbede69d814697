"""Raw HTTP over sockets, for requests that no client library would send."""
import contextlib
import json
import re
import socket
import time


def address_of(url: str) -> tuple[str, int]:
    host, port = re.match(r"http://([^:/]+):(\d+)", url).groups()
    return host, int(port)


def connect(url: str, receive_buffer: int = 0, timeout: float = 60) -> socket.socket:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(timeout)
    raw.connect(address_of(url))
    return raw


def posted(path: str, body: dict, headers: str = "") -> bytes:
    """The bytes of a POST."""
    text = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"{headers}Content-Length: {len(text)}\r\n\r\n").encode() + text


def completion(body: dict, headers: str = "") -> bytes:
    return posted("/v1/completions", body, headers)


def read_all(raw: socket.socket) -> bytes:
    """What comes until the peer closes or resets."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := raw.recv(65536):
            data += chunk
    return data


def status_of(data: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d+)", data)
    return int(match[1]) if match else 0


def ask_raw(url: str, data: bytes, timeout: float = 60) -> tuple[int, bytes, float]:
    """Sends bytes and reads to the close: status (0: none), answer, seconds to the close."""
    begin = time.monotonic()
    with connect(url, timeout=timeout) as raw:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(data)
        answer = read_all(raw)
    return status_of(answer), answer, time.monotonic() - begin


def wait_until(condition, limit_s: float = 60, pause_s: float = 0.02):
    """Seconds until `condition` held; a hang limit, not a measurement."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > limit_s:
            raise AssertionError(f"not within {limit_s} s: {getattr(condition, '__name__', '')}")
        time.sleep(pause_s)
    return time.monotonic() - begin
