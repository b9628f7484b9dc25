//! HAProxy: one thread, connections to servers shared and kept.

use super::Role;
use crate::entry::{Entry, Ports};
use crate::resources::HEADER_ROUTES;
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const GLOBAL: &str = "global
    nbthread 1
    maxconn 9000
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
";

pub(super) fn arguments(command: &mut Command, role: Role, ports: Ports, dir: &Path) -> Result<()> {
    let file = dir.join(format!("haproxy-{role:?}.cfg"));
    std::fs::write(&file, config(role, ports))?;
    command.args(["-db", "-f"]).arg(file);
    Ok(())
}

fn config(role: Role, ports: Ports) -> String {
    let mut text = GLOBAL.to_owned();
    let entries: &[Entry] =
        if role == Role::Inbound { &[Entry::Inbound, Entry::InboundBytes] } else { &Entry::OUTBOUND };
    for entry in entries {
        let name = entry.name();
        let mode = match entry {
            Entry::Bytes | Entry::MeshBytes | Entry::InboundBytes => "tcp",
            _ => "http",
        };
        let bind = match entry {
            Entry::Http2 => " proto h2",
            Entry::Inbound => " ssl crt server.both ca-file root.pem verify required alpn h2,http/1.1",
            Entry::InboundBytes => " ssl crt server.both ca-file root.pem verify required",
            _ => "",
        };
        let server = match entry {
            Entry::Http2 => " proto h2",
            Entry::MeshHttp2 => " ssl crt client.both ca-file root.pem verify required alpn h2",
            Entry::MeshHttp1 => " ssl crt client.both ca-file root.pem verify required alpn http/1.1",
            Entry::MeshBytes => " ssl crt client.both ca-file root.pem verify required",
            _ => "",
        };
        let _ = writeln!(text, "frontend {name}\n    mode {mode}");
        let _ = writeln!(text, "    bind 127.0.0.1:{}{bind}", ports.of(*entry));
        if *entry == Entry::Features {
            text += "    log global\n    option httplog\n";
            for index in 0..HEADER_ROUTES {
                let _ = writeln!(text, "    use_backend {name} if {{ req.hdr(x-route-{index}) -m str yes }}");
            }
        }
        let _ = writeln!(text, "    default_backend {name}\nbackend {name}\n    mode {mode}");
        if *entry == Entry::Features {
            text += "    retries 2\n    option redispatch\n";
        }
        let _ = writeln!(text, "    server s 127.0.0.1:{}{server}", entry.next(ports));
    }
    text
}
