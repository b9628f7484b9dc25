//! The peers of our own making: `peer`, a minimal proxy over hyper and a loop that copies.

use super::Role;
use crate::entry::{Entry, Ports};
use std::process::Command;

/// hyper, with TLS by the same library that ours uses. Bytes it copies.
pub(super) fn hyper(command: &mut Command, role: Role, ports: Ports) {
    let entries: &[Entry] =
        if role == Role::Inbound { &[Entry::Inbound, Entry::InboundBytes] } else { &Entry::OUTBOUND };
    for entry in entries {
        let kind = match entry {
            Entry::Hop => "http",
            Entry::MeshHttp2 => "http+tls-out+h2-out",
            Entry::MeshHttp1 => "http+tls-out",
            Entry::Http2 => "http+h2-in+h2-out",
            Entry::Bytes => "copy",
            Entry::MeshBytes => "copy+tls-out",
            Entry::Inbound => "http+tls-in",
            Entry::InboundBytes => "copy+tls-in",
            Entry::Features => continue,
        };
        command.arg(format!("{kind}:{}:{}", ports.of(*entry), entry.next(ports)));
    }
}

/// Bytes alone: the floor. Nothing is encrypted on the way through the mesh.
pub(super) fn copy(command: &mut Command, role: Role, ports: Ports) {
    let entries: &[Entry] = if role == Role::Inbound {
        &[Entry::Inbound]
    } else {
        &[Entry::Hop, Entry::MeshHttp2, Entry::MeshHttp1, Entry::Http2, Entry::Bytes]
    };
    for entry in entries {
        command.arg(format!("copy:{}:{}", ports.of(*entry), entry.next(ports)));
    }
}
