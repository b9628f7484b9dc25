//! Steps on the screen: a tick and its seconds for each, and what is being waited for once a second.

use std::{
    future::Future,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The steps of one command.
pub struct Steps {
    terminal: bool,
    json: bool,
    started: Instant,
}

/// What a running step says it is doing.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<String>>);

impl Note {
    /// Replaces what is shown.
    pub fn set(&self, text: impl Into<String>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = text.into();
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Steps {
    /// On a terminal a line changes in place; elsewhere each step is one line, and with `json` one object.
    pub fn new(json: bool) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), json, started: Instant::now() }
    }

    /// Runs a step. The work returns a text for the finished line.
    pub async fn run<F, Fut, E>(&self, name: &str, work: F) -> Result<(), E>
    where
        F: FnOnce(Note) -> Fut,
        Fut: Future<Output = Result<String, E>>,
        E: std::fmt::Display,
    {
        let (note, started) = (Note::default(), Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(if self.terminal { 120 } else { 1000 }));
        tick.tick().await;
        let mut work = std::pin::pin!(work(note.clone()));
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = tick.tick() => self.waiting(name, &note, started),
            }
        };
        match &result {
            Ok(text) => self.done(name, text, started.elapsed(), true),
            Err(error) => self.done(name, &error.to_string(), started.elapsed(), false),
        }
        result.map(|_| ())
    }

    /// Seconds since the command began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn waiting(&self, name: &str, note: &Note, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            return;
        }
        if self.terminal {
            let spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'][(seconds * 8.0) as usize % 10];
            let text: String = note.get().chars().take(90).collect();
            eprint!("\r\x1b[2K {spinner} {name:<11} {text} {seconds:.0}s");
            drop(std::io::stderr().flush());
        } else {
            eprintln!("   {name:<11} {} ({seconds:.0}s)", note.get());
        }
    }

    fn done(&self, name: &str, text: &str, took: Duration, good: bool) {
        let seconds = took.as_secs_f64();
        if self.json {
            println!(
                "{}",
                serde_json::json!({"step": name, "ok": good, "seconds": (seconds * 1000.0).round() / 1000.0, "text": text})
            );
            return;
        }
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let mark = match (good, self.terminal) {
            (true, true) => "\x1b[32m✓\x1b[0m",
            (true, false) => "✓",
            (false, true) => "\x1b[31m✗\x1b[0m",
            (false, false) => "✗",
        };
        if good {
            eprintln!("{clear} {mark} {name:<11} {text:<62} {seconds:>6.1}s");
        } else {
            // The failure itself is printed once, at the end of the command.
            eprintln!("{clear} {mark} {name:<11} failed after {seconds:.1}s");
        }
    }
}
