//! Watching that the cluster stays while a command works on it: `meshctl down` may be given from elsewhere at any moment.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
};
use serde_json::Value;
use std::{future::Future, path::PathBuf, time::Duration};

/// Between two looks at the control socket.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One cluster process, as it was when a command began to rely on it.
#[derive(Debug, Clone)]
pub struct Presence {
    socket: PathBuf,
    pid: Option<i64>,
}

impl Presence {
    /// The process that said `status` of itself.
    pub fn new(socket: PathBuf, status: &Value) -> Self {
        Self { socket, pid: status["pid"].as_i64() }
    }

    /// Works as long as the process lives and is not told to end. A failure of the work that comes from the end is told as the end.
    pub async fn during<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let failure = tokio::select! {
            result = work => match result {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            },
            gone = self.gone() => return Err(gone),
        };
        Err(self.look().await.unwrap_or(failure))
    }

    /// Waits for the end.
    async fn gone(&self) -> Failure {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(gone) = self.look().await {
                return gone;
            }
        }
    }

    async fn look(&self) -> Option<Failure> {
        match control::status(&self.socket).await {
            Ok(None) => Some(gone()),
            Ok(Some(status)) if !status["ending"].is_null() || status["pid"].as_i64() != self.pid => {
                Some(gone())
            }
            // One that is too busy to answer is there.
            _ => None,
        }
    }
}

/// The cluster went away under a command.
pub fn gone() -> Failure {
    Failure::new(Exit::Failed, "the cluster was stopped or removed meanwhile (meshctl stop, meshctl down, or its process was killed)")
        .fix("run meshctl up again")
}
