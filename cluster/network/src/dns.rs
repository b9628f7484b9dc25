//! Cluster DNS, one server a node: the names of services and pods, after Kubernetes' DNS specification 1.1.0.
//!
//! The server's address is on the loopback link of every node, so answers come from there without translation. There is no upstream:
//! any other name does not exist, and the asker is told so at once.

mod zone;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;

use self::zone::{Answer, Zone};
use crate::NetworkError;
use crate::fabric::NodeNet;
use crate::netns::NetNs;
use crate::services::ServiceCatalog;

/// Where every node's DNS server is: the address in pods' resolv.conf.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 53;
/// A connection that asks nothing for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers of one connection that wait to be read.
const TCP_ANSWERS_MAX: usize = 32;
/// The largest datagram sent, after DNS flag day 2020: it is never fragmented.
const DATAGRAM_BYTES_MAX: u16 = 1232;

/// Answers on a node's DNS address until dropped; `bound` is told when it listens. Until the catalog is synced, answers say that the
/// server is not ready.
///
/// # Errors
/// When the address cannot be bound, or the server ends.
pub async fn run_dns(
    node: NodeNet,
    catalog: Arc<ServiceCatalog>,
    domain: &str,
    bound: impl FnOnce() + Send,
) -> Result<(), NetworkError> {
    let failed = || NetworkError::io(format!("cannot serve DNS on {}", node.name));
    let namespace = NetNs::open(&node.net_ns).map_err(failed())?;
    let address = SocketAddr::V4(SocketAddrV4::new(DNS_ADDRESS, PORT));
    let socket = namespace.bind_udp(address).await.map_err(failed())?;
    let listener = namespace.listen(address).await.map_err(failed())?;
    let zone =
        Zone::new(domain).ok_or_else(|| NetworkError::Config(format!("`{domain}` is not a domain")))?;
    let mut server = Server::new(Handler { zone, catalog, turn: AtomicUsize::new(0) });
    server.register_socket(socket);
    server.register_listener(listener, TCP_IDLE, TCP_ANSWERS_MAX);
    bound();
    server.block_until_done().await.map_err(|error| failed()(io::Error::other(error)))
}

struct Handler {
    zone: Zone,
    catalog: Arc<ServiceCatalog>,
    /// Rotates answers, so that clients that take the first one spread.
    turn: AtomicUsize,
}

// === impl Handler ===

impl Handler {
    fn answer(&self, request: &Request) -> Answer {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Answer::code(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else { return Answer::code(ResponseCode::FormErr) };
        if !self.catalog.is_synced() {
            return Answer::code(ResponseCode::ServFail);
        }
        let mut answer = self.zone.answer(&self.catalog, query.original());
        if answer.records.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answer.records.len();
            answer.records.rotate_left(turn);
        }
        answer
    }
}

impl RequestHandler for Handler {
    // What the trait's `async fn` stands for, written out.
    fn handle_request<'life0, 'life1, 'async_trait, R, T>(
        &'life0 self,
        request: &'life1 Request,
        mut response_handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'async_trait>>
    where
        R: ResponseHandler + 'async_trait,
        T: Time + 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let answer = self.answer(request);
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.response_code = answer.code;
            metadata.authoritative = answer.authoritative;
            metadata.recursion_available = false;
            let edns = request.edns.as_ref().map(|asked| {
                let mut edns = Edns::new();
                edns.set_max_payload(asked.max_payload().clamp(512, DATAGRAM_BYTES_MAX));
                edns
            });
            let mut builder = MessageResponseBuilder::from_message_request(request);
            if let Some(edns) = &edns {
                builder.edns(edns);
            }
            let none: [Record; 0] = [];
            let response =
                builder.build(metadata, &answer.records, &none, &answer.authority, &answer.additional);
            match response_handle.send_response(response).await {
                Ok(info) => info,
                Err(error) => {
                    tracing::debug!(%error, "DNS answer not sent");
                    Header { metadata, counts: HeaderCounts::default() }.into()
                }
            }
        })
    }
}
