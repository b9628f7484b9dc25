// Answers every request, once its body has ended, with an empty response that names what was seen.
const http = require('http');
const server = http.createServer({ maxHeaderSize: 128 * 1024, keepAlive: true }, (request, response) => {
  request.on('data', () => {});
  request.on('end', () => {
    response.writeHead(204, { 'x-saw': 'yes' });
    response.end();
  });
});
server.on('connect', (request, socket) => socket.end('HTTP/1.1 200 OK\r\nx-saw: yes\r\n\r\n'));
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), '127.0.0.1');
