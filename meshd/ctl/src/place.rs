//! Where a cluster lives on this machine, and where its programs are.

use crate::failure::{Exit, Failure, Outcome};
use clap::Args;
use std::path::{Path, PathBuf};

/// Which cluster is meant.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Name of the cluster.
    #[arg(long, env = "MESH_NAME", default_value = "mesh", global = true, value_parser = name)]
    pub name: String,
    /// Where its data is kept [default: /var/lib/<name>].
    #[arg(long, env = "MESH_DATA_DIR", global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where its sockets and mounts are [default: /run/<name>].
    #[arg(long, env = "MESH_RUN_DIR", global = true, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Kubeconfig file to use instead of the cluster's own.
    #[arg(long, env = "KUBECONFIG", global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Place {
    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| Path::new("/var/lib").join(&self.name))
    }

    /// The runtime directory.
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| Path::new("/run").join(&self.name))
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("cluster.sock")
    }

    /// The log of the cluster process.
    pub fn log(&self) -> PathBuf {
        self.data_dir().join("cluster.log")
    }

    /// The cluster's own kubeconfig.
    pub fn own_kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// The kubeconfig that was asked for, or the cluster's own.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or_else(|| self.own_kubeconfig())
    }
}

fn name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= 20
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-');
    good.then(|| text.to_owned()).ok_or_else(|| "must be 1 to 20 of the characters a-z, 0-9 and `-`".into())
}

/// A program that was built beside this one.
pub fn program(name: &str) -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new("/")).join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(Exit::Failed, format!("{} is missing", path.display())).fix("build it: make build"))
}
