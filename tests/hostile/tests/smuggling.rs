//! HTTP/1.1 request smuggling: what the sidecar forwards is the same requests to every reader, or nothing.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tests_hostile::capture::Capture;
use tests_hostile::foreign::{self, Server};
use tests_hostile::random::Random;
use tests_hostile::reference::{self, Rest};
use tests_hostile::smuggling::{Verdict, corpus};
use tests_hostile::wire::{self, End};
use tests_hostile::{ListenerSpec, Sidecar, Spec};

use crate::SIDECAR;

/// Follows a request on a backend's connection: it is answered if and only if the reader agrees where the request ended.
const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\nConnection: close\r\n\r\n";

fn start(capture: &Capture) -> Sidecar {
    let spec = Spec { listeners: vec![ListenerSpec::to("in", capture.address)], workers: 2 };
    Sidecar::start(SIDECAR, &spec, None).unwrap()
}

#[test]
fn hand_made_attacks_are_refused_and_nothing_else_is() {
    let cases = corpus();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let capture = Capture::start().unwrap();
    let sidecar = start(&capture);
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        *counts.entry(case.class).or_default() += 1;
        let before = capture.accepted();
        let quiet = if case.verdict == Verdict::Broken { 1000 } else { 5000 };
        let answer =
            wire::exchange(sidecar.address("in"), &case.bytes, Duration::from_millis(quiet)).unwrap();
        let statuses = answer.statuses();
        let forwarded = capture.accepted() - before;
        let mut streams = Vec::new();
        for _ in 0..forwarded {
            streams.extend(capture.next(Duration::from_secs(10)));
        }
        let parsed: Vec<_> = streams.iter().map(|stream| reference::parse(stream)).collect();
        let good = match case.verdict {
            Verdict::Refused => {
                matches!(statuses[..], [status] if status >= 400)
                    && answer.end == End::Closed
                    && forwarded == 0
            }
            Verdict::Broken => {
                answer.end != End::Open
                    && statuses.iter().all(|status| *status >= 400)
                    && parsed.iter().all(|(requests, rest)| {
                        requests.is_empty() && matches!(rest, Rest::Partial | Rest::Empty)
                    })
            }
            Verdict::Served(count) => {
                statuses == vec![200; count]
                    && answer.end == End::Closed
                    && forwarded == count
                    && parsed.iter().all(|(requests, rest)| requests.len() == 1 && *rest == Rest::Empty)
            }
        };
        if !good {
            wrong.push(format!(
                "{} {}: {:?} wanted, {statuses:?} {:?}, forwarded {:?}",
                case.class,
                case.name,
                case.verdict,
                answer.end,
                streams.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>()
            ));
        }
    }
    println!("{} cases: {counts:?}", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Seeded mutations of the corpus, as many as `HOSTILE_MUTATIONS` says (100,000). Each request that comes out is alone on its
/// connection to the upstream: there must be one whole request and not a byte more.
#[test]
fn mutated_attacks_never_become_two_requests() {
    let count: usize = std::env::var("HOSTILE_MUTATIONS").map_or(100_000, |text| text.parse().unwrap());
    let seed: u64 = std::env::var("HOSTILE_SEED").map_or(1, |text| text.parse().unwrap());
    let capture = Capture::start().unwrap();
    let sidecar = start(&capture);
    let address = sidecar.address("in");
    let bases: Vec<Vec<u8>> =
        corpus().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 4096).collect();
    let threads = 24;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let bases = &bases;
            scope.spawn(move || {
                let mut random = Random::new(seed * 1000 + thread as u64);
                for _ in 0..count / threads {
                    attack(address, &mutate(&mut random, bases));
                }
            });
        }
    });
    let mut unique = HashSet::new();
    // The last connections end when the sidecar sees that their clients have gone.
    while let Some(stream) = capture.next(Duration::from_millis(500)) {
        let (requests, rest) = reference::parse(&stream);
        let whole = requests.len() == 1 && rest == Rest::Empty;
        let begun = requests.is_empty() && matches!(rest, Rest::Partial | Rest::Empty);
        assert!(
            whole || begun,
            "seed {seed}: {rest:?} after {requests:?} in {:?}",
            String::from_utf8_lossy(&stream)
        );
        if whole {
            unique.insert(stream);
        }
    }
    println!("{count} mutations, {} different requests forwarded", unique.len());
    assert!(unique.len() >= count / 200, "only {} requests came through", unique.len());
    let mut streams: Vec<Vec<u8>> = unique.into_iter().collect();
    streams.sort();
    agree(&streams);
}

/// Every foreign server must count exactly one request in each of these streams.
fn agree(streams: &[Vec<u8>]) {
    let most: usize = std::env::var("HOSTILE_STREAMS").map_or(400, |text| text.parse().unwrap());
    let step = streams.len().div_ceil(most).max(1);
    let dir = tempfile::tempdir().unwrap();
    let servers: Vec<Server> =
        foreign::SERVERS.iter().map(|name| foreign::start(name, dir.path()).unwrap()).collect();
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = servers
            .iter()
            .map(|server| {
                scope.spawn(move || {
                    // cheroot does not read trailers: it answers one more request, with 400.
                    let trailers = |stream: &[u8]| {
                        let last = stream.windows(5).position(|five| five == b"\r\n0\r\n");
                        last.is_some_and(|at| !stream[at + 5..].starts_with(b"\r\n"))
                    };
                    let picked = streams
                        .iter()
                        .filter(|stream| server.name != "cheroot" || !trailers(stream))
                        .step_by(step);
                    let mut counts = [0; 3];
                    let mut wrong = Vec::new();
                    for stream in picked {
                        match reading(server.address, stream) {
                            Reading::Agrees => counts[0] += 1,
                            Reading::Refuses => counts[1] += 1,
                            Reading::Hangs | Reading::Other(_) => {
                                counts[2] += 1;
                                let what = reading(server.address, stream);
                                wrong.push(format!(
                                    "{}: {what:?}: {:?}",
                                    server.name,
                                    String::from_utf8_lossy(stream)
                                ));
                            }
                        }
                    }
                    println!(
                        "{}: agrees on {}, refuses {}, differs on {}",
                        server.name, counts[0], counts[1], counts[2]
                    );
                    if counts[0] < counts[1] {
                        wrong.push(format!("{} refuses most: it tests nothing", server.name));
                    }
                    wrong
                })
            })
            .collect();
        for worker in workers {
            wrong.extend(worker.join().unwrap());
        }
    });
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// How a server reads a request followed by the sentinel.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    /// Two responses.
    Agrees,
    /// It answers the request with an error, or closes.
    Refuses,
    /// It waits for more: the sentinel was read as part of the request.
    Hangs,
    /// So many responses.
    Other(Vec<u16>),
}

fn reading(address: SocketAddr, stream: &[u8]) -> Reading {
    let answer = wire::exchange(address, &[stream, SENTINEL].concat(), Duration::from_secs(5)).unwrap();
    let statuses = answer.statuses();
    match statuses[..] {
        [_, second] if second < 400 => Reading::Agrees,
        [first] if first >= 400 => Reading::Refuses,
        [] | [_] if answer.end != End::Open => Reading::Refuses,
        // Some answer a method they do not know with an error and read on.
        [first, second] if first >= 400 && second >= 400 => Reading::Refuses,
        [] | [_] => Reading::Hangs,
        _ => Reading::Other(statuses),
    }
}

fn attack(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    // Ports are not kept for a minute after each of so many connections.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    if stream.write_all(bytes).is_ok() {
        wire::read(&mut stream, Duration::from_millis(15));
    }
}

const PIECES: [&[u8]; 34] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"\x0b",
    b"\xff",
    b"\r\n\r\n",
    b"\r\n ",
    b"chunked",
    b"identity",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 35\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"POST",
    b"HEAD",
    b"X-A: b\r\n",
];

fn mutate(random: &mut Random, bases: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(bases).clone();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(7) {
            0 => drop(bytes.splice(at..at, random.pick(&PIECES).iter().copied())),
            1 => drop(bytes.splice(at..end.max(at), random.pick(&PIECES).iter().copied())),
            2 => drop(bytes.drain(at..end.max(at))),
            3 => {
                // A line twice, or elsewhere.
                let lines: Vec<Vec<u8>> =
                    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                if !lines.is_empty() {
                    let line = random.pick(&lines).clone();
                    let place = random.below(lines.len() + 1);
                    bytes = [lines[..place].concat(), line, lines[place..].concat()].concat();
                }
            }
            4 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            5 if at < bytes.len() => bytes[at] ^= 0x20,
            _ => {
                let other = random.pick(bases);
                let cut = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[cut..]);
            }
        }
    }
    bytes
}
