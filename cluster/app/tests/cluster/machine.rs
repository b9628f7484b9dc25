//! A private machine for one test, and the cluster process on it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// A debug build on a busy machine stays well below this.
pub const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

pub struct Machine {
    pub name: String,
    pub root: tempfile::TempDir,
}

/// A running `cluster run`, killed when dropped.
pub struct Running {
    pub process: Child,
    pub log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = (self.process.kill(), self.process.wait());
    }
}

/// Runs `test` on a thread in namespaces of its own, and ends its cluster afterwards.
pub fn isolated(name: &str, test: impl FnOnce(&Machine) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("these tests make namespaces: run them as root");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            // Short paths: a socket's has at most 107 bytes.
            let root = tempfile::Builder::new().prefix("cl").tempdir_in("/tmp").unwrap();
            let machine = Machine { name: format!("t{}-{name}", std::process::id()), root };
            test(&machine);
            let down = machine.down();
            assert!(down.status.success(), "{}", text(&down));
            machine.assert_clean();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Machine {
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command.args([verb, "--name", &self.name]);
        command.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.run_dir());
        command
    }

    /// Starts the cluster and waits for its control socket.
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// As [`Machine::start`], with further options.
    pub fn start_with(&self, options: &[&str]) -> Running {
        let log = self.root.path().join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let process = self.command("run").args(options).stderr(file).stdout(Stdio::null()).spawn().unwrap();
        let mut running = Running { process, log };
        self.wait(&mut running, "the control socket", |_| true);
        running
    }

    pub fn down(&self) -> Output {
        self.command("down").output().unwrap()
    }

    /// Waits until the status says what `done` looks for.
    pub fn wait(&self, running: &mut Running, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        let mut last = Value::Null;
        loop {
            let log = || fs::read_to_string(&running.log).unwrap();
            if let Some(status) = running.process.try_wait().unwrap() {
                panic!("waiting for {what}, the cluster ended with {status}:\n{}", log());
            }
            if let Some(status) = self.ask("GET", "/status") {
                if done(&status) {
                    return status;
                }
                last = status;
            }
            assert!(Instant::now() < deadline, "waiting for {what}: {last:#}\n{}", log());
            std::thread::park_timeout(POLL);
        }
    }

    /// One question to the control socket; `None` while nobody answers.
    pub fn ask(&self, method: &str, path: &str) -> Option<Value> {
        self.send(method, path, &[])
    }

    /// As [`Machine::ask`], with a body.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Option<Value> {
        let mut socket = UnixStream::connect(self.run_dir().join("cluster.sock")).ok()?;
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: c\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        socket.write_all(body).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn assert_clean(&self) {
        assert!(!self.data().exists() && !self.run_dir().exists());
        let netns: Vec<_> =
            fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!netns.iter().any(|file| file.to_str().unwrap().starts_with(&self.name)), "{netns:?}");
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains(self.root.path().to_str().unwrap()), "{mounts}");
        assert!(!PathBuf::from(format!("/run/lock/mesh-cluster-{}.lock", self.name)).exists());
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            assert!(!hierarchy.path().join(format!("cluster-{}", self.name)).exists());
        }
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
