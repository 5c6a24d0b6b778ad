"""A proxy on loopback that records what a server is sent, and when the client leaves."""

import json
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        wanted = {"content-type", "authorization"}
        headers = {k: v for k, v in self.headers.items() if k.lower() in wanted}
        request = urllib.request.Request(self.server.upstream + self.path, body, headers)
        self.close_connection = True
        try:
            reply = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers["Content-Type"])
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while data := reply.read1(4096):
                    self.wfile.write(data)
                    self.wfile.flush()
            except OSError:
                self.server.left.set()  # and closing `reply` tells the server


@contextmanager
def recording(url):
    """Put a proxy in front of a server's API."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    proxy.upstream = url.removesuffix("/v1")
    proxy.received, proxy.left = [], threading.Event()
    proxy.url = f"http://127.0.0.1:{proxy.server_address[1]}/v1"
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
