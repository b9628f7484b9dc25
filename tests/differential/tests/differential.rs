//! Many configurations, many requests, two proxies, one answer.
//!
//! `DIFFERENTIAL_SEED` starts elsewhere than at 1, `DIFFERENTIAL_ROUNDS` runs for longer or shorter; what is found is told with the
//! seed, so that it can be run again.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use policies_xds::route::RouteConfiguration;
use std::collections::BTreeMap;
use std::fmt::Write;
use tests_differential::client::{Call, Client};
use tests_differential::compare::differences;
use tests_differential::generate::{Generator, request};
use tests_differential::rig::{Rig, envoy_address, our_address, routes_name};
use tokio::task::JoinSet;

/// Listeners, each with options of its own.
const LISTENERS: u16 = 25;
/// Each round gives every listener another configuration: 300 in all.
const ROUNDS: u64 = 12;
const REQUESTS: usize = 100;
/// Examples told of each kind of difference.
const EXAMPLES_MAX: usize = 3;

/// What differed, by its kind.
type Found = BTreeMap<String, (usize, Vec<String>)>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn every_answer_is_envoys() {
    let (seed, rounds) = (setting("DIFFERENTIAL_SEED", 1), setting("DIFFERENTIAL_ROUNDS", ROUNDS));
    let mut rig = Rig::start(seed, LISTENERS).await.unwrap();
    let (mut found, mut sent) = (Found::new(), 0);
    for round in 0..rounds {
        let seeds: Vec<u64> =
            (0..LISTENERS).map(|index| (seed << 32) + (round << 8) + u64::from(index)).collect();
        let generation = format!("round {round}");
        let mut generators: Vec<_> = seeds.iter().map(|seed| Generator::new(*seed)).collect();
        let configs: Vec<_> = (0..LISTENERS)
            .zip(&mut generators)
            .map(|(index, generator)| generator.route_configuration(&routes_name(index), &generation))
            .collect();
        rig.configure(&configs, &generation).await.unwrap();
        let mut tasks = JoinSet::new();
        for ((index, config), mut generator) in (0..LISTENERS).zip(configs).zip(generators) {
            let calls: Vec<_> = (0..REQUESTS).map(|_| request(&mut generator, &config)).collect();
            sent += calls.len();
            let at = format!("round {round}, listener {index}");
            tasks.spawn(async move { compare(&at, index, &config, &calls).await });
        }
        while let Some(more) = tasks.join_next().await {
            for (kind, (count, examples)) in more.unwrap() {
                let known = found.entry(kind).or_default();
                known.0 += count;
                known.1.extend(examples);
                known.1.truncate(EXAMPLES_MAX);
            }
        }
    }
    assert!(found.is_empty(), "seed {seed}: {}", report(&found, sent));
}

async fn compare(at: &str, index: u16, config: &RouteConfiguration, calls: &[Call]) -> Found {
    let mut found = Found::new();
    let (mut envoy, mut ours) = (Client::new(envoy_address(index)), Client::new(our_address(index)));
    for call in calls {
        let (theirs, own) = tokio::join!(envoy.send(call), ours.send(call));
        let differing = match (&theirs, &own) {
            (Ok(theirs), Ok(own)) => differences(call, theirs, own),
            (Err(_), Err(_)) => Vec::new(),
            _ => vec!["one does not answer".to_owned()],
        };
        for line in differing {
            let (count, examples) = found.entry(kind(&line)).or_default();
            *count += 1;
            if examples.len() < EXAMPLES_MAX {
                examples.push(format!(
                    "{at}: {line}\n{call:?}\nEnvoy: {theirs:?}\nours:  {own:?}\n{config:#?}\n"
                ));
            }
        }
    }
    found
}

/// The line without its values.
fn kind(line: &str) -> String {
    line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn report(found: &Found, sent: usize) -> String {
    let mut text = format!("after {sent} requests\n");
    for (kind, (count, _)) in found {
        writeln!(text, "{count:6} × {kind}").unwrap();
    }
    for (kind, (_, examples)) in found {
        for example in examples {
            writeln!(text, "\n== {kind}\n{example}").unwrap();
        }
    }
    text
}
