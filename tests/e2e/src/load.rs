//! Requests from outside the mesh, through the gateway: single ones, and loads that are bounded in count.

use crate::mesh::INGRESS_PORT;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

/// A client outside the mesh. Cheap to clone.
#[derive(Clone)]
pub struct Outside(Client<HttpConnector, Empty<Bytes>>);

/// Counts of what came back.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Answers by status; 0 is no answer at all.
    pub statuses: BTreeMap<u16, usize>,
    /// Answers by what `classify` made of them.
    pub classes: BTreeMap<String, usize>,
    /// A few of the failures, in words.
    pub failures: Vec<String>,
}

/// A steady load in the background.
pub struct Steady {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Tally>,
}

impl Outside {
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// One GET through the gateway; whole answer with its time.
    pub async fn get(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Response<Bytes>, Duration)> {
        let mut request = Request::get(format!("http://127.0.0.1:{INGRESS_PORT}{path}")).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let started = Instant::now();
        let call = async {
            let (head, body) = self.0.request(request.body(Empty::new())?).await?.into_parts();
            anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        let answer =
            tokio::time::timeout(Duration::from_secs(30), call).await.context("no answer within 30 s")??;
        Ok((answer, started.elapsed()))
    }

    /// `count` GETs, `at_once` under way, as fast as they come back.
    pub async fn many(
        &self,
        host: &str,
        path: &str,
        count: usize,
        at_once: usize,
        classify: fn(&Response<Bytes>) -> String,
    ) -> Tally {
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(count));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let workers = (0..at_once).map(|_| {
            let (client, left, tally, host, path) =
                (self.clone(), left.clone(), tally.clone(), host.to_owned(), path.to_owned());
            tokio::spawn(async move {
                while left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let answer = client.get(&host, &path, &[]).await;
                    tally.lock().expect("no worker panics").note(answer, classify);
                }
            })
        });
        futures::future::join_all(workers).await;
        let tally = tally.lock().expect("no worker panics");
        tally.clone()
    }

    /// `rate` GETs a second until stopped, at most for ten minutes.
    pub fn steady(
        &self,
        host: &str,
        path: &str,
        rate: u32,
        classify: fn(&Response<Bytes>) -> String,
    ) -> Steady {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped, host, path) = (self.clone(), stop.clone(), host.to_owned(), path.to_owned());
        let task = tokio::spawn(async move {
            let tally = Arc::new(Mutex::new(Tally::default()));
            let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let end = Instant::now() + Duration::from_secs(600);
            let mut calls = tokio::task::JoinSet::new();
            while !stopped.load(Relaxed) && Instant::now() < end {
                tick.tick().await;
                let (client, tally, host, path) = (client.clone(), tally.clone(), host.clone(), path.clone());
                calls.spawn(async move {
                    let answer = client.get(&host, &path, &[]).await;
                    tally.lock().expect("no call panics").note(answer, classify);
                });
                while calls.try_join_next().is_some() {}
            }
            while calls.join_next().await.is_some() {}
            let tally = tally.lock().expect("no call panics");
            tally.clone()
        });
        Steady { stop, task }
    }
}

impl Steady {
    /// Ends the load; what came back.
    pub async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Relaxed);
        Ok(self.task.await?)
    }
}

impl Tally {
    /// All answers.
    pub fn total(&self) -> usize {
        self.statuses.values().sum()
    }

    /// Answers that are not 200.
    pub fn bad(&self) -> usize {
        self.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum()
    }

    fn note(
        &mut self,
        answer: Result<(Response<Bytes>, Duration)>,
        classify: fn(&Response<Bytes>) -> String,
    ) {
        let (status, failure) = match &answer {
            Ok((response, _)) => (
                response.status().as_u16(),
                String::from_utf8_lossy(response.body()).chars().take(120).collect(),
            ),
            Err(error) => (0, format!("{error:#}")),
        };
        *self.statuses.entry(status).or_default() += 1;
        if status != 200 && self.failures.len() < 5 {
            self.failures.push(format!("{status}: {failure}"));
        }
        if let Ok((response, _)) = &answer {
            *self.classes.entry(classify(response)).or_default() += 1;
        }
    }
}
