//! The invariants of ARCHITECTURE.md.

use std::collections::BTreeSet;
use tests_tidy::{files, is_test, reaches, root, sources, without_tests};

const PLANES: [&str; 3] = ["sidecar-", "meshd-", "cluster-"];

fn complain(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn planes_do_not_know_each_other() {
    let mut found = Vec::new();
    for (name, all) in reaches() {
        let Some(own) = PLANES.iter().find(|plane| name.starts_with(**plane)) else { continue };
        for other in PLANES.iter().filter(|plane| plane != &own) {
            found.extend(
                all.iter().filter(|dep| dep.starts_with(other)).map(|dep| format!("{name} reaches {dep}")),
            );
        }
    }
    complain("a plane reaches another", found);
}

#[test]
fn what_planes_share_knows_none_of_them() {
    let shared = |name: &str| name.starts_with("base-") || name.starts_with("policies-");
    let mut found = Vec::new();
    for (name, all) in reaches().into_iter().filter(|(name, _)| shared(name)) {
        found.extend(
            all.iter()
                .filter(|dep| PLANES.iter().any(|plane| dep.starts_with(plane)))
                .map(|dep| format!("{name} reaches {dep}")),
        );
        if name.starts_with("base-") {
            found.extend(
                all.iter()
                    .filter(|dep| dep.starts_with("policies-"))
                    .map(|dep| format!("{name} reaches {dep}")),
            );
        }
    }
    complain("a shared crate reaches a plane", found);
}

#[test]
fn pure_crates_do_no_io() {
    let pure = [
        "base-types",
        "policies-api",
        "sidecar-route",
        "sidecar-balance",
        "meshd-model",
        "meshd-webhook",
        "cluster-machinery",
    ];
    let impure = ["tokio", "hyper", "rustls", "kube", "kube-client"];
    let mut found = Vec::new();
    for (name, all) in reaches() {
        // The messages' crate brings gRPC along; what is pure about these two is their own code, which the next loop looks at.
        if pure.contains(&name.as_str()) && !["sidecar-route", "sidecar-balance"].contains(&name.as_str()) {
            found.extend(
                impure.iter().filter(|dep| all.contains(**dep)).map(|dep| format!("{name} reaches {dep}")),
            );
        }
    }
    for (file, text) in sources() {
        let own = ["sidecar/model", "sidecar/route", "sidecar/balance", "meshd/model", "meshd/compile"]
            .iter()
            .any(|dir| file.starts_with(dir));
        if own && !is_test(&file) {
            let names = [
                "tokio::",
                "hyper::",
                "rustls::",
                "kube::",
                "std::net::Tcp",
                "std::fs::",
                "SystemTime::now",
                "Instant::now",
            ];
            found.extend(
                names
                    .iter()
                    .filter(|name| without_tests(&text).contains(**name))
                    .map(|name| format!("{} names {name}", file.display())),
            );
        }
    }
    complain("a pure crate does I/O", found);
}

#[test]
fn one_crate_names_rustls_and_one_names_envoy() {
    let mut found = Vec::new();
    for file in files().into_iter().filter(|file| {
        file.ends_with("Cargo.toml") && file.parent().is_some_and(|p| p != std::path::Path::new(""))
    }) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        for (dependency, owner) in
            [("rustls", "base/tls"), ("tokio-rustls", "base/tls"), ("envoy-types", "policies/xds")]
        {
            let named = text.lines().any(|line| line.split(['.', '=', ' ']).next() == Some(dependency));
            if named && !file.starts_with(owner) {
                found.push(format!("{} names {dependency}; only {owner} may", file.display()));
            }
        }
    }
    complain("a library is named outside its crate", found);
}

#[test]
fn only_programs_read_environment() {
    let may = ["sidecar/app", "meshd/app", "meshd/ctl", "cluster/app", "policies/samples", "tests"];
    let found = sources()
        .into_iter()
        .filter(|(file, text)| {
            !is_test(file)
                && !may.iter().any(|dir| file.starts_with(dir))
                && without_tests(text).contains("env::var")
        })
        .map(|(file, _)| file.display().to_string());
    complain("the environment is read outside */app", found.collect());
}

/// Modules that talk to the kernel in ways the standard library does not.
const UNSAFE: [&str; 4] = ["cluster/containers/src/", "cluster/network/src/", "cluster/app/src/", "sidecar/"];

#[test]
fn unsafe_code_stands_where_it_may_and_says_why() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        let code = without_tests(&text);
        if is_test(&file) || !code.contains("unsafe {") {
            continue;
        }
        let name = file.to_string_lossy();
        if !UNSAFE.iter().any(|prefix| name.starts_with(prefix)) {
            found.push(format!("{name}: unsafe outside the system modules"));
        }
        if !code.contains("SAFETY:") {
            found.push(format!("{name}: unsafe without its reason"));
        }
    }
    complain("unsafe code", found);
}

#[test]
fn files_stay_small() {
    let found = sources()
        .into_iter()
        .map(|(file, text)| (file, without_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > 1000);
    complain(
        "a file is too long",
        found.map(|(file, lines)| format!("{} has {lines} lines", file.display())).collect(),
    );
}

#[test]
fn modules_are_named_after_their_files_and_say_what_they_own() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            found.push(format!("{}: mod.rs", file.display()));
        }
        if !is_test(&file) && !text.starts_with("//!") {
            found.push(format!("{}: no doc comment at the top", file.display()));
        }
    }
    complain("a module is not as the others are", found);
}

#[test]
fn nothing_is_left_to_do() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        for word in [
            concat!("todo", "!("),
            concat!("unimplemented", "!("),
            concat!("TO", "DO:"),
            concat!("#[ig", "nore]"),
            concat!("thread::", "sleep("),
        ] {
            // A load generator keeps time: that is its work, not a test that waits.
            let keeps_time = file.starts_with("tests/perf") && word.contains("sleep");
            if text.contains(word) && !file.starts_with("tests/tidy") && !keeps_time {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    complain("something is left to do, skipped, or waits for time", found);
}

#[test]
fn the_top_level_has_only_what_it_may() {
    let may: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "sidecar",
        "meshd",
        "cluster",
        "policies",
        "tests",
        "dashboards",
        "base",
        "docs",
        "README.md",
        "ARCHITECTURE.md",
        "Makefile",
        "clippy.toml",
        "rustfmt.toml",
    ]
    .into();
    let tops: BTreeSet<String> = files()
        .iter()
        .filter_map(|file| Some(file.components().next()?.as_os_str().to_string_lossy().into_owned()))
        .collect();
    complain(
        "a stranger at the top level",
        tops.into_iter().filter(|top| !top.starts_with('.') && !may.contains(top.as_str())).collect(),
    );
}

#[test]
fn every_crate_stands_in_the_code_map() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let crates = files()
        .into_iter()
        .filter(|file| file.ends_with("Cargo.toml"))
        .filter_map(|file| Some(file.parent()?.to_string_lossy().into_owned()));
    let missing = crates.filter(|dir| {
        !dir.is_empty()
            && !dir.starts_with("tests")
            && !dir.starts_with("policies/samples")
            && !map.contains(&format!("`{dir}`"))
    });
    complain("ARCHITECTURE.md does not mention a crate", missing.collect());
}
