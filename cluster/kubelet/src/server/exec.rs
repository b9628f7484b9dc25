//! `/exec` and `/attach`: a command's or a container's streams over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_containers::{
    ContainerId, Error as RuntimeError, ExecSession, ExecSpec, Input, Output, Resize, Runtime,
};
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::query::Query;
use super::websocket::{self, Protocol, Socket};
use super::{Answer, Api, Refusal};
use crate::node::PodEntry;
use crate::pod;
use crate::state::Life;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Closes the stream whose number follows (v5).
const CLOSE: u8 = 255;

const BLOCK_BYTES: usize = 32 << 10;
/// Blocks of input a command has not read yet.
const INPUT_WAITING_MAX: usize = 8;
/// How long output may still trickle after a command's exit, while a child of it holds the streams open.
const TRICKLE: Duration = Duration::from_millis(200);

/// Runs a command in a container.
pub(super) fn exec(
    api: &Arc<Api>,
    found: PodEntry,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let id = running(&found, container)?;
    let argv = query.all("command");
    if argv.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container",
        ));
    }
    let tty = query.flag(&["tty"]);
    let spec =
        ExecSpec { argv: argv.clone(), tty, stdin: query.flag(&["stdin", "input"]), ..ExecSpec::default() };
    let runtime = api.node.runtime.clone();
    let start = async move { runtime.exec(&id, spec).await };
    session(api, query, request, argv, start)
}

/// Joins the streams of a container's own process.
pub(super) fn attach(
    api: &Arc<Api>,
    found: PodEntry,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let id = running(&found, container)?;
    let runtime: Runtime = api.node.runtime.clone();
    let start = async move { runtime.attach(&id).await };
    session(api, query, request, Vec::new(), start)
}

fn running(found: &PodEntry, container: &str) -> Result<ContainerId, Refusal> {
    let name = pod::name(&found.pod);
    if pod::container(&found.pod, container).is_none() {
        let message = format!("container {container} is not valid for pod {name}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    }
    match &found.state.container(container).life {
        Life::Running(running) | Life::Stopping(running) => ContainerId::parse(&running.id),
        _ => None,
    }
    .ok_or_else(|| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{container}\")"))
    })
}

fn session(
    api: &Arc<Api>,
    query: &Query,
    request: Request<Incoming>,
    argv: Vec<String>,
    start: impl Future<Output = Result<ExecSession, RuntimeError>> + Send + 'static,
) -> Result<Answer, Refusal> {
    let wanted = Wanted {
        stdin: query.flag(&["stdin", "input"]),
        stdout: query.flag(&["stdout", "output"]),
        stderr: query.flag(&["stderr", "error"]) && !query.flag(&["tty"]),
    };
    let (answer, protocol, upgrade) = websocket::accept(request)?;
    let shutdown = api.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run(upgrade, protocol, wanted, argv, start) => {}
        }
    });
    Ok(answer)
}

/// Which streams the client wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

async fn run(
    upgrade: OnUpgrade,
    protocol: Protocol,
    wanted: Wanted,
    argv: Vec<String>,
    start: impl Future<Output = Result<ExecSession, RuntimeError>>,
) {
    let Ok(socket) = websocket::open(upgrade).await else { return };
    let mut client = Client { socket, protocol };
    // Kubernetes' servers say hello on the lowest channel they write; some clients wait for it.
    let hello = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    if !client.send(hello, &[]).await {
        return;
    }
    let ended = match start.await {
        Ok(session) => relay(&mut client, session, wanted).await,
        Err(error) => Some(Err(error)),
    };
    if let Some(result) = ended {
        client.send(ERROR, &client.verdict(&argv, result)).await;
        client.close().await;
    }
}

struct Client {
    socket: Socket,
    protocol: Protocol,
}

/// Copies streams until the command has ended, which is answered, or the client has gone.
async fn relay(
    client: &mut Client,
    session: ExecSession,
    wanted: Wanted,
) -> Option<Result<i32, RuntimeError>> {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let mut output = Reader::new(stdout, wanted.stdout);
    let mut errors = Reader::new(stderr, wanted.stderr);
    let mut input = stdin.filter(|_| wanted.stdin).map(writer);
    let mut result = None;
    let exit = exit.wait();
    tokio::pin!(exit);
    loop {
        if result.is_some() && output.is_done() && errors.is_done() {
            return result;
        }
        // A client's next message is taken only when there is room for it.
        let room = async {
            match &input {
                Some(input) => input.clone().reserve_owned().await.ok(),
                None => None,
            }
        };
        tokio::select! {
            biased;
            read = output.read(), if !output.is_done() => {
                if read > 0 && !output.dropped() && !client.send(STDOUT, output.block(read)).await {
                    return None;
                }
            }
            read = errors.read(), if !errors.is_done() => {
                if read > 0 && !errors.dropped() && !client.send(STDERR, errors.block(read)).await {
                    return None;
                }
            }
            code = &mut exit, if result.is_none() => result = Some(code),
            message = async { (room.await, client.socket.next().await) } => match message {
                (room, Some(Ok(message))) => {
                    if matches!(message, Message::Close(_)) {
                        return None;
                    }
                    if client.takes_input_end(&message) {
                        input = None;
                    } else if let Some(data) = client.data(&message, &resize)
                        && let Some(room) = room
                    {
                        // Released to the sender again, which is kept for the next message.
                        let _sender = room.send(data);
                    }
                }
                (_, Some(Err(_)) | None) => return None,
            },
            () = tokio::time::sleep(TRICKLE), if result.is_some() => return result,
        }
    }
}

/// Writes input in a task of its own, so that a command that does not read cannot hold up its output.
fn writer(mut stdin: Input) -> mpsc::Sender<Bytes> {
    let (sender, mut waiting) = mpsc::channel::<Bytes>(INPUT_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(data) = waiting.recv().await {
            // A command that closed its input reads no more; the rest is dropped with the channel.
            if stdin.write_all(&data).await.is_err() {
                return;
            }
        }
        // The command may be gone already.
        let _gone = stdin.shutdown().await;
    });
    sender
}

/// One output stream, read block by block.
struct Reader {
    stream: Option<Output>,
    wanted: bool,
    buffer: Vec<u8>,
}

// === impl Reader ===

impl Reader {
    fn new(stream: Option<Output>, wanted: bool) -> Self {
        Self { stream, wanted, buffer: vec![0; BLOCK_BYTES] }
    }

    fn is_done(&self) -> bool {
        self.stream.is_none()
    }

    /// Read, but not wanted by the client.
    fn dropped(&self) -> bool {
        !self.wanted
    }

    fn block(&self, length: usize) -> &[u8] {
        &self.buffer[..length]
    }

    /// Reads a block; 0 at the end. Cancel-safe.
    async fn read(&mut self) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        let length = stream.read(&mut self.buffer).await.unwrap_or(0);
        if length == 0 {
            self.stream = None;
        }
        length
    }
}

// === impl Client ===

impl Client {
    /// Sends data on a channel; false when the client is gone.
    async fn send(&mut self, channel: u8, data: &[u8]) -> bool {
        self.socket.send(self.protocol.message(channel, data)).await.is_ok()
    }

    async fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // The client may have closed first.
        let _closed = self.socket.close(Some(frame)).await;
        let drain = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _silent = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }

    /// Whether the message ends the input (v5).
    fn takes_input_end(&self, message: &Message) -> bool {
        self.protocol == Protocol::V5
            && matches!(self.protocol.parse(message), Some((CLOSE, data)) if data.first() == Some(&STDIN))
    }

    /// Input for the command; a new window size is applied at once.
    fn data(&self, message: &Message, resize: &Resize) -> Option<Bytes> {
        let (channel, data) = self.protocol.parse(message)?;
        if channel == RESIZE
            && let Some((columns, rows)) = size(&data)
        {
            // A terminal that is gone has no size.
            let _gone = resize.set(columns, rows);
        }
        (channel == STDIN && !data.is_empty()).then_some(data)
    }

    /// What the error channel says at the end.
    fn verdict(&self, argv: &[String], result: Result<i32, RuntimeError>) -> Vec<u8> {
        let status = status(argv, result);
        match self.protocol {
            Protocol::V5 | Protocol::V4 => status.to_string().into_bytes(),
            // These protocols have text only, and none for success.
            Protocol::V1 | Protocol::Base64 => match status["message"].as_str() {
                Some(message) => message.as_bytes().to_vec(),
                None => Vec::new(),
            },
        }
    }
}

fn size(data: &[u8]) -> Option<(u16, u16)> {
    let size: Value = serde_json::from_slice(data).ok()?;
    let side = |key: &str| size.get(key).and_then(Value::as_u64).and_then(|value| u16::try_from(value).ok());
    Some((side("Width")?, side("Height")?))
}

fn status(argv: &[String], result: Result<i32, RuntimeError>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                argv.join(" ")
            ),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("error executing command in container: {}", base_types::ErrorChain(&error)),
            "reason": "InternalError",
            "details": {"causes": [{"message": base_types::ErrorChain(&error).to_string()}]},
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_told_as_kubectl_expects_it() {
        let failed = status(&["sh".into(), "-c".into(), "exit 3".into()], Ok(3));
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status(&[], Ok(0))["status"], "Success");
        assert_eq!(status(&[], Err(RuntimeError::Start("no such file".into())))["code"], 500);
    }

    #[test]
    fn window_sizes() {
        assert_eq!(size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(size(br#"{"Width":99999,"Height":24}"#), None);
        assert_eq!(size(b"nonsense"), None);
    }
}
