//! HTTP/2 floods: bounded memory, the offender is told to calm down, and who behaves does not notice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tests_hostile::backend::Backend;
use tests_hostile::frames::{
    self, ACK, Connection, END_HEADERS, GET, POST, code, frame, headers, kind, reset,
};
use tests_hostile::load::Good;
use tests_hostile::memory::Group;
use tests_hostile::{ListenerSpec, Sidecar, Spec};

use crate::SIDECAR;

/// Memory the sidecar may use for everything.
const LIMIT_BYTES: u64 = 64 << 20;
/// Memory that attacks may cost.
const GROWTH_BYTES: u64 = 16 << 20;

/// A shape of attack.
struct Shape {
    name: &'static str,
    /// What is sent once, after the settings.
    start: Vec<u8>,
    /// What is sent again and again, by its number.
    next: fn(u32) -> Vec<u8>,
    /// Whether the sidecar must end the connection for it.
    ends: bool,
    /// How often `next` is sent at most; the connection is held then.
    most: u32,
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

fn shape(name: &'static str, start: Vec<u8>, next: fn(u32) -> Vec<u8>) -> Shape {
    Shape { name, start, next, ends: true, most: 500_000 }
}

fn shapes() -> Vec<Shape> {
    let open_headers = frame(kind::HEADERS, 0, 1, &frames::block(&GET));
    let crumbs = |number: u32| {
        let mut fields: Vec<(&str, &str)> = GET.to_vec();
        fields.extend(std::iter::repeat_n(("cookie", "a=b"), 300));
        headers(stream(number), true, &fields)
    };
    // One entry of 3 KiB in the table, named again and again for a byte each.
    let mut big = GET.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    big.truncate(4);
    let mut bomb = frames::block(&big);
    bomb.push(0x40);
    frames::integer(&mut bomb, 0, 7, 1);
    bomb.push(b'x');
    frames::integer(&mut bomb, 0, 7, 3000);
    bomb.resize(bomb.len() + 3000, b'y');
    let bomb = frame(kind::HEADERS, END_HEADERS | 1, 1, &bomb);
    vec![
        shape("rapid reset", vec![], |number| {
            [headers(stream(number), true, &GET), reset(stream(number), code::CANCEL)].concat()
        }),
        shape("made you reset", vec![], |number| {
            [headers(stream(number), false, &POST), frames::window_update(stream(number), 0)].concat()
        }),
        shape("continuation", open_headers, |_| {
            frame(kind::CONTINUATION, 0, 1, &frames::block(&[("x", "y")]))
        }),
        shape("empty data", headers(1, false, &POST), |_| frame(kind::DATA, 0, 1, &[])),
        shape("settings", vec![], |_| frames::settings(&[(4, 65_535)])),
        shape("ping", vec![], |_| frame(kind::PING, 0, 0, b"flooding")),
        shape("priority", vec![], |number| frame(kind::PRIORITY, 0, stream(number % 1000), &[0, 0, 0, 0, 1])),
        shape("window update", vec![], |_| frames::window_update(0, 1)),
        shape("unknown frames", vec![], |_| frame(0xbe, 0, 0, &[])),
        shape("settings acknowledged", vec![], |_| frame(kind::SETTINGS, ACK, 0, &[])),
        Shape {
            name: "header bomb",
            start: bomb,
            next: |number| {
                let mut block = frames::block(&GET);
                block.resize(block.len() + 4000, 0x80 | 62);
                frame(kind::HEADERS, END_HEADERS | 1, stream(number + 1), &block)
            },
            ends: false,
            most: 500_000,
        },
        shape("cookie crumbs", vec![], crumbs),
        Shape {
            name: "stalled streams",
            start: frames::settings(&[(4, 0)]),
            next: |number| {
                let path = [
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/bytes/200000"),
                    (":authority", "a"),
                ];
                headers(stream(number), true, &path)
            },
            ends: false,
            // Requests under way cost what requests cost: it is their bodies that must not be piled up.
            most: 10,
        },
        Shape {
            name: "reset after headers",
            start: vec![],
            next: |number| {
                let data = frame(kind::DATA, 0, stream(number), &[b'x'; 100]);
                [headers(stream(number), false, &POST), data, reset(stream(number), code::CANCEL)].concat()
            },
            ends: true,
            most: 500_000,
        },
    ]
}

/// Floods one connection; the code of the GOAWAY it ends with, and how many times `next` was sent.
fn flood(address: SocketAddr, shape: &Shape, until: Instant, stop: &AtomicBool) -> (Option<u32>, u32, bool) {
    let Ok(mut connection) = Connection::open(address) else { return (None, 0, true) };
    let (mut number, mut code) = (0, None);
    let _ = connection.stream.set_write_timeout(Some(Duration::from_millis(200)));
    let mut open = connection.send(&shape.start);
    while open && Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let mut batch = Vec::new();
        for _ in 0..shape.most.min(50) {
            batch.extend((shape.next)(number));
            number += 1;
        }
        open = connection.send(&batch);
        // What has come is looked at without waiting for more.
        while let Some(frame) = connection.next(Instant::now() + Duration::from_micros(50)) {
            if frame.kind == kind::GOAWAY {
                code = frame.code();
            }
        }
        open &= !connection.closed;
        if number >= shape.most {
            while open && Instant::now() < until && !stop.load(Ordering::Relaxed) {
                connection.next(Instant::now() + Duration::from_millis(20));
                open = !connection.closed;
            }
            break;
        }
    }
    if code.is_none() && !connection.closed {
        let found = connection.until(Duration::from_millis(500), |frame| frame.kind == kind::GOAWAY);
        code = found.and_then(|frame| frame.code());
    }
    (code, number, connection.closed || !open)
}

fn start(tasks: Option<&std::path::Path>) -> (Backend, Sidecar) {
    let backend = Backend::start().unwrap();
    let listeners = vec![ListenerSpec::to("in", backend.address), ListenerSpec::to("good", backend.address)];
    let sidecar = Sidecar::start(SIDECAR, &Spec { listeners, workers: 1 }, tasks).unwrap();
    (backend, sidecar)
}

#[test]
fn who_floods_is_told_to_calm_down() {
    let (_backend, sidecar) = start(None);
    let mut wrong = Vec::new();
    for shape in shapes().iter().filter(|shape| shape.ends) {
        let calm = [Some(code::ENHANCE_YOUR_CALM), Some(code::PROTOCOL_ERROR)];
        // A close with unread input may overtake the GOAWAY: the kernel then takes it back. Ended it must be each time.
        let told = (0..5).any(|_| {
            let until = Instant::now() + Duration::from_secs(10);
            let (code, sent, ended) = flood(sidecar.address("in"), shape, until, &AtomicBool::new(false));
            println!("{}: ended {ended} with {code:?} after {sent}", shape.name);
            if !ended {
                wrong.push(format!("{} goes on after {sent}", shape.name));
            }
            calm.contains(&code)
        });
        if !told {
            wrong.push(format!("{} is not told why", shape.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every shape from many connections at once, beside good traffic, in 64 MiB. `HOSTILE_CONNECTIONS` (20) and `HOSTILE_SECONDS` (2) a shape.
#[test]
fn floods_harm_nobody_else() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (connections, seconds) = (number("HOSTILE_CONNECTIONS", 20), number("HOSTILE_SECONDS", 2));
    let group = Group::limited(LIMIT_BYTES).unwrap();
    let (_backend, mut sidecar) = start(Some(&group.tasks()));
    let (attacked, good_address) = (sidecar.address("in"), sidecar.address("good"));
    let good = Good::start(good_address, 100);
    std::thread::park_timeout(Duration::from_secs(2));
    let calm = good.stop().unwrap();
    assert!(calm.failures.is_empty(), "{:?}", calm.failures);
    let before = sidecar.resident().unwrap();
    println!("calm: p50 {:?}, p99 {:?}, {} KiB", calm.percentile(50), calm.percentile(99), before / 1024);
    for shape in &shapes() {
        let good = Good::start(good_address, 100);
        let until = Instant::now() + Duration::from_secs(seconds as u64);
        let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut peak = 0;
        std::thread::scope(|scope| {
            for _ in 0..connections.min(16) {
                scope.spawn(|| {
                    while Instant::now() < until && opened.fetch_add(1, Ordering::Relaxed) < connections * 5 {
                        flood(attacked, shape, until, &stop);
                    }
                });
            }
            while Instant::now() < until {
                peak = peak.max(sidecar.resident().unwrap());
                std::thread::park_timeout(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let figures = good.stop().unwrap();
        sidecar.alive().unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        println!(
            "{}: {} connections, good {} of {}, p50 {:?}, p99 {:?}, peak +{} KiB",
            shape.name,
            opened.load(Ordering::Relaxed),
            figures.good,
            figures.good + figures.failures.len(),
            figures.percentile(50),
            figures.percentile(99),
            peak.saturating_sub(before) / 1024
        );
        assert!(figures.failures.is_empty(), "{}: {:?}", shape.name, figures.failures);
        assert!(peak <= before + GROWTH_BYTES, "{}: {before} grew to {peak} bytes", shape.name);
    }
}
