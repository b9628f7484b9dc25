//! The program that the tests of this crate run in containers; with `shim` as first argument it is the helper instead.
//! Words may be chained with `--`: `print a -- exit 3`.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "shim") {
        cluster_containers::shim_main(args[1..].to_vec());
    }
    for words in args.split(|arg| arg == "--") {
        match perform(words) {
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
fn perform(words: &[String]) -> io::Result<Option<u8>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["print", rest @ ..] => println!("{}", rest.join(" ")),
        ["complain", rest @ ..] => eprintln!("{}", rest.join(" ")),
        ["exit", code] => return Ok(Some(code.parse().unwrap_or(98))),
        ["env"] => env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["cwd"] => println!("{}", env::current_dir()?.display()),
        ["cat", path] => io::stdout().write_all(&fs::read(path)?)?,
        ["list", path] => {
            fs::read_dir(path)?.flatten().for_each(|e| println!("{}", e.file_name().to_string_lossy()))
        }
        ["write", path] => attempt(path, fs::write(path, "data")),
        ["open", path] => attempt(path, fs::File::open(path).map(drop)),
        ["link", path] => println!("{}", fs::read_link(path)?.display()),
        ["long", count] => println!("{}", "x".repeat(count.parse().unwrap_or(0))),
        ["read-only", path] => {
            let flags = nix::sys::statvfs::statvfs(*path)?.flags();
            println!("{path} read-only {}", flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
        }
        ["many", count] => many(count.parse().unwrap_or(0))?,
        ["keyctl"] => attempt("keyctl", keyctl()),
        ["unshare"] => {
            attempt("unshare", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(Into::into))
        }
        ["mknod", path] => {
            let (kind, mode) = (nix::sys::stat::SFlag::S_IFBLK, nix::sys::stat::Mode::S_IRUSR);
            let made = nix::sys::stat::mknod(*path, kind, mode, nix::sys::stat::makedev(254, 0));
            attempt(path, made.map_err(Into::into));
        }
        ["wait-for", signal] => wait_for(signal)?,
        ["ignore", signal] => {
            SigSet::from(signal.parse::<Signal>()?).thread_block()?;
            println!("ignoring");
            wait_for("SIGUSR2")?;
        }
        ["eat", mebibytes] => eat(mebibytes.parse().unwrap_or(0)),
        ["eat-in-child", mebibytes] => {
            println!("child {}", Command::new("/proc/self/exe").args(["eat", mebibytes]).status()?);
        }
        ["spawn", count] => spawn(count.parse().unwrap_or(0)),
        ["orphan", rest @ ..] => drop(Command::new("/proc/self/exe").args(rest).spawn()?),
        ["burn", milliseconds] => burn(milliseconds.parse().unwrap_or(0)),
        ["tick"] => tick()?,
        ["echo"] => echo()?,
        ["size"] => return size(),
        other => println!("unknown words {other:?}"),
    }
    Ok(None)
}

fn attempt(what: impl std::fmt::Display, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{what}: done"),
        Err(error) => println!("{what}: {error}"),
    }
}

/// Waits for a signal that would otherwise be ignored by a first process.
fn wait_for(signal: &str) -> io::Result<()> {
    let signal: Signal = signal.parse()?;
    let set = SigSet::from(signal);
    set.thread_block()?;
    println!("waiting for {signal}");
    println!("got {}", set.wait()?);
    Ok(())
}

fn eat(mebibytes: usize) {
    let mut kept = Vec::new();
    for _ in 0..mebibytes {
        kept.push(vec![1u8; 1 << 20]);
    }
    println!("ate {}", kept.iter().map(Vec::len).sum::<usize>() >> 20);
}

fn many(count: usize) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    (0..count).try_for_each(|n| writeln!(out, "line {n}"))?;
    out.flush()
}

/// A call the default filter denies and the kernel allows to everyone.
#[expect(unsafe_code, reason = "there is no safe wrapper for this call")]
fn keyctl() -> io::Result<()> {
    const KEYCTL_GET_KEYRING_ID: i64 = 0;
    // SAFETY: three integers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, -3, 1) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts sleeping children until the limit says no.
fn spawn(count: usize) {
    let mut children = Vec::new();
    for n in 0..count {
        match Command::new("/proc/self/exe").args(["wait-for", "SIGUSR1"]).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                println!("spawned {n}: {error}");
                break;
            }
        }
    }
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn burn(milliseconds: u64) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let mut n = 0u64;
    while Instant::now() < end {
        n = n.wrapping_add(1);
    }
    println!("burnt {}", n > 0);
}

/// One line for each line of the file `/go/N` that appears; the test decides the pace.
fn tick() -> io::Result<()> {
    let mut n = 0;
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if Path::new("/go").join(n.to_string()).exists() {
            println!("tick {n}");
            n += 1;
        }
        if Path::new("/go/end").exists() {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn echo() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        println!("echo {line}");
        eprintln!("noted {}", line.len());
    }
    println!("end of input");
    Ok(())
}

/// Says the terminal's size now and after each line of input.
fn size() -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        let status = fs::read_to_string("/proc/self/stat")?;
        let terminal = status
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(4))
            .unwrap_or("0")
            .to_owned();
        let size = window_size();
        println!("terminal {} size {size}", terminal != "0");
        loop {
            if io::stdin().read(&mut byte)? == 0 {
                return Ok(Some(0));
            }
            match byte[0] {
                b'q' => return Ok(Some(5)),
                b'\n' => break,
                _ => {}
            }
        }
    }
}

#[expect(unsafe_code, reason = "there is no safe wrapper for this request")]
fn window_size() -> String {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes the structure it is given.
    let result = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    if result < 0 { "none".to_owned() } else { format!("{}x{}", size.ws_col, size.ws_row) }
}
