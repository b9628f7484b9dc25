//! WebSocket upgrades with the channel protocols of Kubernetes: the first byte of each message names a channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Answer, Refusal};

/// Longest message taken from a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How channels are written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Binary; an exit code is told as a Status; the client may close single streams.
    V5,
    /// Binary; an exit code is told as a Status.
    V4,
    /// Binary; errors are told as text.
    V1,
    /// As `V1`, with a digit for the channel and the rest in base64.
    Base64,
}

/// A connection with channels.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

// === impl Protocol ===

impl Protocol {
    /// Picks the first protocol of the client's list that is known.
    fn choose(offered: &str) -> Option<(Self, &str)> {
        offered.split(',').map(str::trim).find_map(|name| {
            let protocol = match name {
                "v5.channel.k8s.io" => Self::V5,
                "v4.channel.k8s.io" => Self::V4,
                "channel.k8s.io" => Self::V1,
                "base64.channel.k8s.io" => Self::Base64,
                _ => return None,
            };
            Some((protocol, name))
        })
    }

    /// A message of `data` on `channel`.
    pub(super) fn message(self, channel: u8, data: &[u8]) -> Message {
        if self == Self::Base64 {
            let digit = char::from(b'0'.saturating_add(channel.min(9)));
            return Message::text(format!("{digit}{}", STANDARD.encode(data)));
        }
        let mut bytes = BytesMut::with_capacity(data.len() + 1);
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// Channel and data of a client's message; `None` for what carries none.
    pub(super) fn parse(self, message: &Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(bytes) if self != Self::Base64 => Some((*bytes.first()?, bytes.slice(1..))),
            Message::Text(text) if self == Self::Base64 => {
                let (digit, data) = text.as_bytes().split_first()?;
                Some((digit.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into()))
            }
            _ => None,
        }
    }
}

/// Accepts an upgrade; the connection is there once the answer has been sent.
pub(super) fn accept(request: Request<Incoming>) -> Result<(Answer, Protocol, OnUpgrade), Refusal> {
    let offered = header(&request, SEC_WEBSOCKET_PROTOCOL);
    let chosen = match offered {
        None => Some((Protocol::V1, "")),
        Some(offered) => Protocol::choose(offered),
    };
    let Some((protocol, name)) = chosen else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "none of the offered WebSocket subprotocols is known",
        ));
    };
    let name = name.to_owned();
    let (answer, upgrade) = switch(request, &name)?;
    Ok((answer, protocol, upgrade))
}

/// The subprotocol in which messages carry the bytes of a SPDY session (KEP-4006).
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Whether a client offers the tunnel.
pub(super) fn is_tunnel(request: &Request<Incoming>) -> bool {
    let offered = header(request, SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    offered.split(',').any(|name| name.trim() == TUNNEL)
}

/// Accepts an upgrade with the tunnel.
pub(super) fn accept_tunnel(request: Request<Incoming>) -> Result<(Answer, OnUpgrade), Refusal> {
    switch(request, TUNNEL)
}

fn header(request: &Request<Incoming>, name: http::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// Answers an upgrade with the subprotocol `name`, if it has one.
fn switch(mut request: Request<Incoming>, name: &str) -> Result<(Answer, OnUpgrade), Refusal> {
    let bad = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, message);
    let upgrades = header(&request, UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let Some(key) = header(&request, SEC_WEBSOCKET_KEY).filter(|_| upgrades) else {
        return Err(bad("a WebSocket upgrade is needed: SPDY is spoken for port-forward alone"));
    };
    let mut answer = Response::new(Empty::new().boxed());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| bad("invalid key"))?;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !name.is_empty() {
        let name = HeaderValue::try_from(name).map_err(|_| bad("invalid subprotocol"))?;
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((answer, hyper::upgrade::on(&mut request)))
}

/// The connection behind an accepted upgrade.
pub(super) async fn open(upgrade: OnUpgrade) -> Result<Socket, hyper::Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = TokioIo::new(upgrade.await?);
    Ok(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let chosen = |offered| Protocol::choose(offered).map(|(protocol, _)| protocol);
        assert_eq!(chosen("v6.channel.k8s.io, v5.channel.k8s.io,v4.channel.k8s.io"), Some(Protocol::V5));
        assert_eq!(chosen("channel.k8s.io"), Some(Protocol::V1));
        assert_eq!(chosen("SPDY/3.1+portforward.k8s.io"), None);
    }

    #[test]
    fn channels_come_back_as_they_went() {
        for protocol in [Protocol::V5, Protocol::V1, Protocol::Base64] {
            let message = protocol.message(2, b"some text");
            assert_eq!(protocol.parse(&message), Some((2, Bytes::from_static(b"some text"))), "{protocol:?}");
        }
        assert_eq!(Protocol::V4.parse(&Message::Binary(Bytes::new())), None);
        assert_eq!(Protocol::V4.parse(&Message::text("0abc")), None);
        assert_eq!(Protocol::Base64.parse(&Message::text("0***")), None);
    }
}
