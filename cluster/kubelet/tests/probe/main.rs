//! The program that the tests of this crate run in pods; with `shim` as first argument it is the container helper instead.
//! Words may be chained with `--`: `append /shared/order app -- serve 8080`.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::{env, fs, thread};

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "shim") {
        cluster_containers::shim_main(args[1..].to_vec());
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_err() {
        return ExitCode::from(97);
    }
    for words in args.split(|arg| arg == "--") {
        match perform(words, &signals) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                println!("error: {error}");
                return ExitCode::from(99);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Does one thing; a code ends the program.
fn perform(words: &[String], signals: &SigSet) -> io::Result<Option<u8>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["print", rest @ ..] => println!("{}", rest.join(" ")),
        ["exit", code] => return Ok(Some(code.parse().unwrap_or(98))),
        ["env"] => env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["cat", path] => io::stdout().write_all(&fs::read(path)?)?,
        ["write", path, rest @ ..] => fs::write(path, rest.join(" "))?,
        ["append", path, rest @ ..] => {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(format!("{}\n", rest.join(" ")).as_bytes())?;
        }
        ["stat", path] => {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(path)?;
            println!("{:o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        }
        ["need", path] => {
            if !fs::exists(path)? {
                return Ok(Some(1));
            }
        }
        ["echo"] => {
            for line in io::stdin().lock().lines() {
                println!("echo {}", line?);
            }
        }
        ["serve", port] => {
            let listener = TcpListener::bind(("0.0.0.0", port.parse().unwrap_or(0)))?;
            thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream))));
            println!("serving");
            signals.wait()?;
            println!("terminating");
        }
        ["eat", mebibytes] => {
            let mut kept = Vec::new();
            for _ in 0..mebibytes.parse().unwrap_or(0) {
                kept.push(vec![1_u8; 1 << 20]);
            }
            println!("ate {}", kept.len());
        }
        ["wait"] => {
            signals.wait()?;
        }
        ["stubborn"] => loop {
            signals.wait()?;
            println!("not yet");
        },
        other => println!("unknown words {other:?}"),
    }
    Ok(None)
}

/// `GET /status/<code>`, or 200 when the file of that path exists and 503 otherwise; the file is the body.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let (code, body) = match path.strip_prefix("/status/") {
        Some(code) => (code.parse().unwrap_or(400), Vec::new()),
        None => match fs::read(&path) {
            Ok(body) => (200, body),
            Err(_) => (503, Vec::new()),
        },
    };
    let head =
        format!("HTTP/1.1 {code} Answer\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}
