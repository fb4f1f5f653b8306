#!/usr/bin/env python3
"""A small HTTP server that greets clients by their address, with nothing but the standard library. It also serves the
connections that Outlive migrates to this machine.

    hello.py 0.0.0.0 8080 /run/hello.sock
"""

import contextlib
import http.server
import os
import socket
import sys
import threading


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        client = f"{self.client_address[0]}:{self.client_address[1]}"
        body = f"hello, {client}, you asked: {self.requestline}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def accept_migrated(path, server):
    """Gives each migrated connection to the server, as if it had accepted it. See docs/accept.md."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as migrated:
        migrated.bind(path)
        os.chmod(path, 0o600)
        print(f"migrated connections arrive at {path}", flush=True)
        while True:
            announcement, descriptors, _, _ = socket.recv_fds(migrated, 1024, 8)
            if announcement[:6] != b"OLAC\0\1" or len(descriptors) != 1:
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(True)
            # The socket knows its client; the announcement says the same.
            server.process_request(connection, connection.getpeername())


def main():
    address, port, path = sys.argv[1:]
    server = http.server.ThreadingHTTPServer((address, int(port)), Hello)
    print(f"listening on {address}:{server.server_address[1]}", flush=True)
    threading.Thread(target=accept_migrated, args=(path, server), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
