"""HTTP/1.1 servers by other people's parsers: `servers.py PARSER PORT`. Each answers every whole request with an empty 204."""
import asyncio
import sys

ANSWER = b"HTTP/1.1 204 No Content\r\nx-saw: yes\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class H11(asyncio.Protocol):
    def connection_made(self, transport):
        import h11

        self.h11 = h11
        self.transport = transport
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=128 * 1024)

    def data_received(self, data):
        h11 = self.h11
        try:
            self.connection.receive_data(data)
            while True:
                event = self.connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.ConnectionClosed):
                    return self.transport.close()
                if isinstance(event, h11.EndOfMessage):
                    self.transport.write(
                        self.connection.send(h11.Response(status_code=204, headers=[("x-saw", "yes")]))
                    )
                    self.transport.write(self.connection.send(h11.EndOfMessage()) or b"")
                    if self.connection.our_state is h11.MUST_CLOSE:
                        return self.transport.close()
                    self.connection.start_next_cycle()
        except h11.RemoteProtocolError:
            self.transport.write(BAD)
            self.transport.close()


class Httptools(asyncio.Protocol):
    def connection_made(self, transport):
        import httptools

        self.httptools = httptools
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def on_message_complete(self):
        self.transport.write(ANSWER)
        if not self.parser.should_keep_alive():
            self.transport.close()

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except self.httptools.HttpParserUpgrade:
            self.transport.write(ANSWER)
            self.transport.close()
        except self.httptools.HttpParserError:
            self.transport.write(BAD)
            self.transport.close()


async def serve_protocol(protocol, port):
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    await server.serve_forever()


def aiohttp(port):
    from aiohttp import web

    async def answer(request):
        await request.read()
        return web.Response(status=204, headers={"x-saw": "yes"})

    async def main():
        server = web.Server(answer, max_line_size=131072, max_field_size=131072)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(main())


def tornado(port):
    import logging

    from tornado import httpserver, httputil

    logging.disable(logging.CRITICAL)

    def answer(request):
        headers = httputil.HTTPHeaders({"x-saw": "yes"})
        request.connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", 204, "No Content"), headers)
        request.connection.finish()

    async def main():
        server = httpserver.HTTPServer(answer, max_header_size=131072)
        server.listen(port, "127.0.0.1")
        await asyncio.Event().wait()

    asyncio.run(main())


def wsgi(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("x-saw", "yes"), ("content-length", "0")])
    return []


def waitress(port):
    import waitress as server

    server.serve(wsgi, host="127.0.0.1", port=port, threads=4, max_request_header_size=131072, _quiet=True)


def cheroot(port):
    from cheroot import wsgi as server

    server.Server(("127.0.0.1", port), wsgi, numthreads=8).start()


def gunicorn(port):
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            for key, value in {
                "bind": f"127.0.0.1:{port}",
                "worker_class": "gthread",
                "threads": 8,
                "keepalive": 30,
                "limit_request_line": 0,
                "limit_request_field_size": 0,
                "limit_request_fields": 200,
                "loglevel": "critical",
            }.items():
                self.cfg.set(key, value)

        def load(self):
            return wsgi

    Application().run()


def main():
    name, port = sys.argv[1], int(sys.argv[2])
    sys.argv = sys.argv[:1]
    if name in ("h11", "httptools"):
        asyncio.run(serve_protocol({"h11": H11, "httptools": Httptools}[name], port))
    else:
        {"aiohttp": aiohttp, "tornado": tornado, "waitress": waitress, "cheroot": cheroot, "gunicorn": gunicorn}[name](port)


main()
