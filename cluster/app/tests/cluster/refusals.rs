//! What cannot work is refused with its cause and its fix, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::machine::{isolated, text};

#[test]
fn without_root() {
    isolated("noroot", |machine| {
        // Where any user can reach it, which the build directory need not be.
        fs::set_permissions(machine.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = machine.root.path().join("cluster");
        fs::copy(env!("CARGO_BIN_EXE_cluster"), &copy).unwrap();
        for verb in ["run", "down"] {
            let output = Command::new(&copy)
                .args([verb, "--name", &machine.name])
                .uid(65534)
                .gid(65534)
                .output()
                .unwrap();
            assert!(!output.status.success());
            assert!(text(&output).contains("must run as root: use `sudo`"), "{}", text(&output));
        }
    });
}

/// Mounts something, for the calling test's thread alone.
fn mounted(kind: &str, options: Option<&str>, at: &Path, flags: MsFlags) {
    mount(Some("test"), at, Some(kind), flags, options).unwrap();
}

#[test]
fn without_cgroups() {
    isolated("cgroup", |machine| {
        let root = Path::new("/sys/fs/cgroup");
        let refused = |words: [&str; 2]| {
            let output = machine.command("run").output().unwrap();
            assert!(!output.status.success());
            assert!(words.into_iter().all(|word| text(&output).contains(word)), "{}", text(&output));
        };
        // Nothing there; then version 2 without memory; then version 1, controller by controller; then all of it, but read-only.
        mounted("tmpfs", Some("mode=755"), root, MsFlags::empty());
        refused(["no cgroups are mounted", "mount -t cgroup2 none /sys/fs/cgroup"]);
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io pids\n").unwrap();
        refused(["`memory` is not available", "cgroup_enable=memory"]);
        fs::remove_file(root.join("cgroup.controllers")).unwrap();
        for (name, next) in [("cpu", "memory"), ("memory", "pids"), ("pids", "")] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("cgroup.procs"), "").unwrap();
            if !next.is_empty() {
                refused([&format!("`{next}` is not available"), &format!("mount -t cgroup -o {next}")]);
            }
        }
        mount(None::<&str>, root, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)
            .unwrap();
        refused(["/sys/fs/cgroup/cpu is read-only", "mount -o remount,rw"]);
        umount2(root, MntFlags::MNT_DETACH).unwrap();
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
        // Too small altogether; and large, but filled so that the kubelets would report pressure.
        for (size, filler_mib, said) in
            [("size=1m", 0, "at least 64 MiB"), ("size=1g", 950, "at least 103 MiB (10 %")]
        {
            mounted("tmpfs", Some(size), &machine.data(), MsFlags::empty());
            // Lies in memory until it is unmounted, some lines further down.
            fs::write(machine.data().join("filler.log"), vec![0; filler_mib << 20]).unwrap();
            let output = machine.command("run").output().unwrap();
            umount2(&machine.data(), MntFlags::MNT_DETACH).unwrap();
            assert!(!output.status.success());
            let text = text(&output);
            assert!(
                text.contains("disk full") && text.contains(said) && text.contains("--data-dir"),
                "{text}"
            );
        }
    });
}

#[test]
fn a_down_while_it_starts_is_not_undone() {
    isolated("undone", |machine| {
        // As `meshctl up` does: the log is opened in the data directory, and then the program started; a `down` comes between.
        fs::create_dir_all(machine.data()).unwrap();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(machine.data().join("cluster.log"))
            .unwrap();
        assert!(machine.down().status.success());
        let mut kept = log.try_clone().unwrap();
        let status = machine.command("run").stderr(log).status().unwrap();
        let mut said = String::new();
        std::io::Seek::rewind(&mut kept).unwrap();
        std::io::Read::read_to_string(&mut kept, &mut said).unwrap();
        assert!(!status.success() && said.contains("was removed while it was starting"), "{said}");
        assert!(!machine.data().exists());
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
