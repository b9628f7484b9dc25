//! The repository as its rules see it: files that git knows, crates, and what each crate depends on.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Top folder of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Files that git tracks, and new ones that it does not ignore, relative to [`root`].
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut files: Vec<PathBuf> =
        text.lines().map(PathBuf::from).filter(|file| root().join(file).is_file()).collect();
    files.sort();
    files.dedup();
    files
}

/// Rust files with their text.
#[must_use]
pub fn sources() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
    rust.map(|file| (file.clone(), std::fs::read_to_string(root().join(&file)).unwrap_or_default())).collect()
}

/// The part of a source before its inline tests.
#[must_use]
pub fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// Whether a file is a test, an example or a benchmark, by its place.
#[must_use]
pub fn is_test(file: &Path) -> bool {
    let text = file.to_string_lossy();
    file.starts_with("tests")
        || text.contains("/tests/")
        || text.ends_with("/tests.rs")
        || text.contains("/examples/")
}

/// All crates that each crate of the workspace reaches through ordinary dependencies.
#[must_use]
pub fn reaches() -> BTreeMap<String, BTreeSet<String>> {
    // Only what this machine builds has been fetched: the rest of the lock file is for other systems.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo tells its metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let normal = list(&node["deps"])
            .into_iter()
            .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        edges.insert(text(&node["id"]), normal.map(|dep| text(&dep["pkg"])).collect());
    }
    let members = list(&metadata["workspace_members"]);
    members
        .iter()
        .map(|member| {
            let (mut seen, mut queue) = (BTreeSet::new(), vec![text(member)]);
            while let Some(id) = queue.pop() {
                for next in edges.get(&id).into_iter().flatten() {
                    if seen.insert(next.clone()) {
                        queue.push(next.clone());
                    }
                }
            }
            (names[&text(member)].clone(), seen.into_iter().map(|id| names[&id].clone()).collect())
        })
        .collect()
}
