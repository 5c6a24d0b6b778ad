"""A model server on loopback that does as it is told: the other end of the wire, made for tests."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}


@dataclass
class Reply:
    """What the server does with one request."""

    pieces: tuple = ("The ", "code ", "is ", "7316.")
    status: int = 200
    headers: dict = field(default_factory=dict)
    content: object = None  # of an error, or instead of a stream
    silent: float = 0.0  # seconds before the reply begins
    pause: float = 0.0  # seconds before the first piece
    between: float = 0.0  # seconds before every other piece
    finish: str | None = "stop"
    usage: dict | None = field(default_factory=lambda: USAGE)
    raw: bytes | None = None  # the stream as it is
    hang_up: bool = False  # before the reply


class Peer:
    """The server: its replies in order, the last one again and again, and what it received."""

    def __init__(self, replies):
        self.replies = list(replies)
        self.requests = []
        self.left = threading.Event()  # a client closed its connection before the end
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def next_reply(self, request):
        with self._lock:
            self.requests.append(request)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": json.loads(body),
        }
        reply = self.server.peer.next_reply(request)
        try:
            self._reply(reply, request["body"])
        except OSError:
            self.server.peer.left.set()

    def _reply(self, reply, asked):
        self.close_connection = True
        if reply.hang_up:
            return
        self._wait(reply.silent)
        if reply.content is not None or not asked.get("stream"):
            time.sleep(reply.pause)
            content = _whole(reply) if reply.content is None else reply.content
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self._head(reply, "application/json")
            self.wfile.write(data)
            return
        self._head(reply, "text/event-stream")
        self.wfile.flush()
        for number, data in enumerate(_events(reply)):
            self._wait(reply.between if number else reply.pause)
            self.wfile.write(data)
            self.wfile.flush()

    def _wait(self, seconds):
        """Sleep, but notice when the client leaves."""
        self.connection.settimeout(max(seconds, 0.001))
        try:
            if seconds and self.connection.recv(1) == b"":
                raise ConnectionError
        except TimeoutError:
            pass
        finally:
            self.connection.settimeout(None)

    def _head(self, reply, kind):
        self.send_response(reply.status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()


def _whole(reply):
    message = {"role": "assistant", "content": "".join(reply.pieces)}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish}
    kind = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**kind, "choices": [choice], "usage": reply.usage}


def _events(reply):
    if reply.raw is not None:
        yield reply.raw
        return
    kind = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(**content):
        return f"data: {json.dumps({**kind, **content}, ensure_ascii=False)}\n\n".encode()

    for piece in reply.pieces:
        delta = piece if isinstance(piece, dict) else {"content": piece}
        yield event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    if reply.finish:
        yield event(choices=[{"index": 0, "delta": {}, "finish_reason": reply.finish}])
    if reply.usage:
        yield event(choices=[], usage=reply.usage)
    yield b"data: [DONE]\n\n"


@contextmanager
def serving(*replies):
    """Start a server with these replies."""
    peer = Peer(replies or [Reply()])
    peer.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    peer.server.peer = peer
    thread = threading.Thread(target=peer.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.server.shutdown()
        peer.server.server_close()
        thread.join()
