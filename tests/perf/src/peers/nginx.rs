//! nginx: one worker, connections to upstreams kept; bytes by its stream module.

use super::Role;
use crate::entry::{Entry, Ports};
use crate::resources::HEADER_ROUTES;
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const CLIENT: &str = "proxy_ssl_certificate client.pem; proxy_ssl_certificate_key client.key; \
                      proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on; ";
const SERVER: &str = "ssl_certificate server.pem; ssl_certificate_key server.key; ssl_protocols TLSv1.3; \
                      ssl_client_certificate root.pem; ssl_verify_client on; ssl_session_cache shared:s:1m; ";

pub(super) fn arguments(command: &mut Command, role: Role, ports: Ports, dir: &Path) -> Result<()> {
    let file = dir.join(format!("nginx-{role:?}.conf"));
    std::fs::write(&file, config(role, ports, dir))?;
    command.arg("-p").arg(dir).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(())
}

fn config(role: Role, ports: Ports, dir: &Path) -> String {
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; worker_processes 1; user root; pid nginx-{role:?}.pid;\n\
         events {{ worker_connections 9000; }}\n"
    );
    let (mut http, mut stream) = (String::new(), String::new());
    let entries: &[Entry] =
        if role == Role::Inbound { &[Entry::Inbound, Entry::InboundBytes] } else { &Entry::OUTBOUND };
    for entry in entries {
        let (name, port, next) = (entry.name(), ports.of(*entry), entry.next(ports));
        match entry {
            Entry::MeshHttp2 => {}
            Entry::Bytes => {
                let _ =
                    writeln!(stream, "server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{next}; }}");
            }
            Entry::MeshBytes => {
                let _ = writeln!(
                    stream,
                    "server {{ listen 127.0.0.1:{port}; proxy_ssl on; {CLIENT} proxy_pass 127.0.0.1:{next}; }}"
                );
            }
            Entry::InboundBytes => {
                let server = SERVER.replace("shared:s", "shared:b");
                let _ = writeln!(
                    stream,
                    "server {{ listen 127.0.0.1:{port} ssl; {server} proxy_pass 127.0.0.1:{next}; }}"
                );
            }
            _ => server(&mut http, *entry, name, port, ports),
        }
    }
    let temp = |kind: &str| format!("{kind}_temp_path {}; ", dir.join(format!("nginx-{kind}")).display());
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| match kind {
            "client_body" => temp("client_body"),
            kind => temp(kind),
        })
        .concat();
    let _ = write!(
        text,
        "http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; {temps}\n{http}}}\n\
         stream {{ {stream} }}\n"
    );
    text
}

fn server(text: &mut String, entry: Entry, name: &str, port: u16, ports: Ports) {
    // To upstreams it speaks HTTP/1.1 only.
    let next = if entry == Entry::Http2 { crate::backend::HTTP1 } else { entry.next(ports) };
    let _ = writeln!(
        text,
        "upstream {name} {{ server 127.0.0.1:{next}; keepalive 512; keepalive_requests 1000000000; }}"
    );
    let listen = match entry {
        Entry::Http2 => " http2",
        Entry::Inbound => " ssl http2",
        _ => "",
    };
    let scheme = if entry == Entry::MeshHttp1 { "https" } else { "http" };
    let _ = write!(text, "server {{ listen 127.0.0.1:{port}{listen}; ");
    match entry {
        Entry::Inbound => text.push_str(SERVER),
        Entry::MeshHttp1 => text.push_str(CLIENT),
        _ => {}
    }
    let forward =
        format!("proxy_pass {scheme}://{name}; proxy_http_version 1.1; proxy_set_header Connection \"\";");
    let _ = write!(text, "location / {{ ");
    if entry == Entry::Features {
        text.push_str("access_log /dev/stdout combined; proxy_next_upstream error timeout; ");
        for index in 0..HEADER_ROUTES {
            let _ = write!(text, "if ($http_x_route_{index} = yes) {{ return 404; }} ");
        }
    }
    let _ = writeln!(text, "{forward} }} }}");
}
