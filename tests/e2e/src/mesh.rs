//! The cluster under test: its commands, its API, its gateway.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Port of the API on 127.0.0.1.
pub const API_PORT: u16 = 16443;
/// Port of the gateway on 127.0.0.1.
pub const INGRESS_PORT: u16 = 18080;

/// Places where versioned kubectl binaries are looked for; the plain `kubectl` may be a dispatcher that picks one by itself.
const KUBECTL_DIRS: [&str; 3] = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/opt/kubectl"];

/// The cluster under test.
pub struct Mesh {
    /// Name of the cluster, and part of all it makes.
    pub name: String,
    /// A checkout of Istio, if one was given.
    pub istio: Option<PathBuf>,
    programs: PathBuf,
    scratch: PathBuf,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.scratch) {
            eprintln!("{} is left: {error}", self.scratch.display());
        }
    }
}

impl Mesh {
    /// Programs are taken from `programs`; `name` keeps runs apart.
    pub fn new(programs: &Path, name: &str, istio: Option<PathBuf>) -> Result<Self> {
        let programs =
            programs.canonicalize().with_context(|| format!("{} does not exist", programs.display()))?;
        for name in ["meshctl", "cluster", "meshd", "sidecar", "bookinfo"] {
            ensure!(
                programs.join(name).is_file(),
                "{} is missing; make build",
                programs.join(name).display()
            );
        }
        let scratch = std::env::temp_dir().join(format!("mesh-e2e-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        Ok(Self { name: name.into(), istio, programs, scratch })
    }

    /// The file of one of the project's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// `meshctl` on this cluster.
    pub fn meshctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("meshctl"));
        command.args(args).env("MESH_NAME", &self.name).env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// Runs `meshctl`; its standard output when it succeeds.
    pub fn meshctl(&self, args: &[&str]) -> Result<String> {
        good(self.meshctl_command(args).output()?, &format!("meshctl {}", args.join(" ")))
    }

    /// Runs `meshctl`, whatever comes of it: exit status, standard output, standard error.
    pub fn meshctl_any(&self, args: &[&str]) -> Result<(i32, String, String)> {
        let output = self.meshctl_command(args).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    /// Versions of kubectl that this machine has, newest last.
    pub fn kubectls() -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for minor in 30..=33 {
            let name = format!("kubectl.1.{minor}");
            found.extend(
                KUBECTL_DIRS
                    .iter()
                    .map(|dir| Path::new(dir).join(&name))
                    .find(|path| path.is_file())
                    .map(|path| (format!("1.{minor}"), path)),
            );
        }
        found
    }

    /// One kubectl on this cluster.
    pub fn kubectl_command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--kubeconfig")
            .arg(format!("/var/lib/{}/kubeconfig", self.name))
            .arg("--cache-dir")
            .arg(self.scratch.join("kubectl-cache"))
            .args(args);
        command
    }

    /// Runs one kubectl.
    pub fn kubectl_with(&self, program: &Path, args: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .kubectl_command(program, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        good(child.wait_with_output()?, &format!("kubectl {}", args.join(" ")))
    }

    /// Runs the newest kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_input(args, "")
    }

    /// Runs the newest kubectl with something to read.
    pub fn kubectl_input(&self, args: &[&str], input: &str) -> Result<String> {
        let (_, program) =
            Self::kubectls().pop().context("no kubectl.1.30 to kubectl.1.33 on this machine")?;
        self.kubectl_with(&program, args, input)
    }

    /// Objects as JSON.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let all = [&["get"], args, &["-o", "json"]].concat();
        Ok(serde_json::from_str(&self.meshctl(&all)?)?)
    }

    /// Applies YAML with `meshctl apply`, waiting until every proxy has it.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let file = self.file("applied.yaml", yaml)?;
        self.meshctl(&["apply", "-f", &file])
    }

    /// Deletes the objects of a YAML text, if they are there.
    pub fn delete(&self, yaml: &str) -> Result<String> {
        let file = self.file("deleted.yaml", yaml)?;
        self.meshctl(&["delete", "-f", &file, "--ignore-not-found"])
    }

    /// Writes a file that lives as long as the run; its path.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.scratch.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// A sample file of the project.
    pub fn sample(name: &str) -> String {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../policies/samples/bookinfo/networking")
            .join(name)
            .display()
            .to_string()
    }

    /// Removes the cluster, running or not.
    pub fn down(&self) -> Result<()> {
        self.meshctl(&["down"]).map(|_| ())
    }

    /// What a person would look at after a failure.
    pub fn explain(&self) {
        let all: [&[&str]; 4] =
            [&["get", "pods", "-A"], &["proxy", "list"], &["get", "events", "-A"], &["status"]];
        for args in all {
            if let Ok((_, out, err)) = self.meshctl_any(args) {
                let tail: Vec<&str> = out.lines().rev().take(40).collect();
                println!(
                    "--- meshctl {}\n{}\n{err}",
                    args.join(" "),
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
        }
        let log = std::fs::read_to_string(format!("/var/lib/{}/cluster.log", self.name)).unwrap_or_default();
        let tail: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .rev()
            .take(30)
            .collect();
        println!("--- warnings of the cluster\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
}

/// Standard output of a command that succeeded.
fn good(output: Output, what: &str) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    bail!("{what}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits until `look` finds something, and says what it saw last when it does not.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(anyhow!("{what}: not within {within:?}; last: {error:#}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
