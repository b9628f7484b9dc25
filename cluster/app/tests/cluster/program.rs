//! What the pods of these tests run: this very program, which is one static file, told by its environment to serve.

use std::io::{Read, Write};
use std::net::TcpListener;

/// The variable that makes a server of [`serve`].
pub const PORT_VARIABLE: &str = "POD_PROGRAM_PORT";

/// Serves in a pod; in the test run itself there is nothing to serve, and nothing happens.
#[test]
fn serve() {
    let Ok(port) = std::env::var(PORT_VARIABLE) else { return };
    let listener = TcpListener::bind(("0.0.0.0", port.parse().unwrap())).unwrap();
    let name = std::env::var("HOSTNAME").unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _request = stream.read(&mut [0; 1024]);
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
        let _gone = write!(stream, "{head}: {}\r\n\r\n{name}", name.len());
    }
}
