//! What cannot work is refused with its cause and its fix, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;

use crate::machine::{isolated, text};

#[test]
fn without_root() {
    isolated("noroot", |machine| {
        for verb in ["run", "down"] {
            let output = machine.command(verb).uid(65534).gid(65534).output();
            // The build directory may be closed to that user, in which case the program cannot even start.
            let Ok(output) = output else { continue };
            assert!(!output.status.success());
            assert!(text(&output).contains("must run as root"), "{}", text(&output));
        }
    });
}

#[test]
fn a_port_in_use() {
    isolated("port", |machine| {
        for (flag, port) in [("--api-port", 6443), ("--ingress-port", 8080), ("--publish", 9999)] {
            let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let mut command = machine.command("run");
            let output = command.args(["--publish", "9999:default/web:80"]).output().unwrap();
            drop(taken);
            assert!(!output.status.success());
            let text = text(&output);
            assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains(flag), "{text}");
        }
    });
}

#[test]
fn a_second_run() {
    isolated("second", |machine| {
        let running = machine.start();
        let output = machine.command("run").output().unwrap();
        assert!(!output.status.success());
        let text = text(&output);
        assert!(
            text.contains("running already") && text.contains(&running.process.id().to_string()),
            "{text}"
        );
    });
}

#[test]
fn somebody_elses_directory() {
    isolated("foreign", |machine| {
        fs::create_dir_all(machine.data()).unwrap();
        let precious = machine.data().join("thesis.tex");
        fs::write(&precious, "a").unwrap();
        for verb in ["run", "down"] {
            let output = machine.command(verb).output().unwrap();
            assert!(!output.status.success());
            assert!(text(&output).contains("--data-dir"), "{}", text(&output));
            assert!(precious.exists());
        }
        fs::remove_dir_all(machine.data()).unwrap();
    });
}

#[test]
fn a_full_disk() {
    isolated("full", |machine| {
        fs::create_dir_all(machine.data()).unwrap();
        let size = "size=1m";
        nix::mount::mount(
            Some("small"),
            &machine.data(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size),
        )
        .unwrap();
        let output = machine.command("run").output().unwrap();
        nix::mount::umount2(&machine.data(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(!output.status.success());
        assert!(text(&output).contains("disk full"), "{}", text(&output));
    });
}

#[test]
fn nft_missing() {
    isolated("nft", |machine| {
        let output = machine.command("run").env("PATH", "/nonexistent").output().unwrap();
        assert!(!output.status.success());
        assert!(text(&output).contains("apt-get install nftables"), "{}", text(&output));
    });
}
