//! Start, kill, restart, end.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;

use crate::machine::{Machine, isolated};

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A client as kubectl would be: with the file the cluster wrote.
pub async fn client(machine: &Machine) -> Client {
    base_tls::install_default_provider();
    let file = Kubeconfig::read_from(machine.data().join("kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[test]
fn two_nodes_become_ready_and_stay_inside() {
    isolated("nodes", |machine| {
        let mut running = machine.start();
        let status = machine.wait(&mut running, "two ready nodes", |status| status["ready"] == true);
        assert_eq!(status["nodes"].as_array().unwrap().len(), 2);
        println!("seconds to ready: {:#}", status["components"]);
        let routes = fs::read_to_string(format!("/proc/{}/net/route", running.process.id())).unwrap();
        let default = |line: &&str| line.split_whitespace().nth(1) == Some("00000000");
        assert!(routes.contains("br0") && !routes.lines().any(|line| default(&line)), "{routes}");
        use std::os::unix::fs::PermissionsExt;
        for private in [
            machine.data().join("kubeconfig"),
            machine.data().join("pki/ca.key"),
            machine.run_dir().join("cluster.sock"),
        ] {
            assert_eq!(
                fs::metadata(&private).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                private.display()
            );
        }
    });
}

#[test]
fn objects_survive_a_kill_and_a_stop() {
    isolated("kill", |machine| {
        let put = |name: &'static str| {
            block_on(async move {
                let maps: Api<ConfigMap> = Api::default_namespaced(client(machine).await);
                let map =
                    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}})).unwrap();
                maps.create(&PostParams::default(), &map).await.unwrap();
            });
        };
        let names = || {
            block_on(async {
                let maps: Api<ConfigMap> = Api::default_namespaced(client(machine).await);
                let list = maps.list(&Default::default()).await.unwrap();
                list.items.into_iter().filter_map(|map| map.metadata.name).collect::<Vec<_>>()
            })
        };
        let api_ready = |status: &serde_json::Value| status["components"]["api"]["ready"] == true;
        let mut running = machine.start();
        machine.wait(&mut running, "the API", api_ready);
        put("first");
        drop(running);
        let mut running = machine.start();
        machine.wait(&mut running, "the API after a kill", api_ready);
        assert!(names().contains(&"first".to_owned()));
        put("second");
        assert_eq!(machine.ask("POST", "/shutdown?pods=stop").unwrap()["pods"], "stop");
        assert!(running.process.wait().unwrap().success());
        let mut running = machine.start();
        machine.wait(&mut running, "the API after a stop", api_ready);
        let names = names();
        assert!(names.contains(&"first".to_owned()) && names.contains(&"second".to_owned()), "{names:?}");
    });
}

#[test]
fn a_new_start_waits_for_the_old_end() {
    isolated("quick", |machine| {
        let mut first = machine.start();
        machine.wait(&mut first, "everything", |status| status["ready"] == true);
        machine.ask("POST", "/shutdown?pods=stop").unwrap();
        // As `meshctl stop` followed by `meshctl up`: the old process no longer answers, but may not be gone.
        while machine.ask("GET", "/status").is_some() {
            std::thread::yield_now();
        }
        let mut second = machine.start();
        machine.wait(&mut second, "everything again", |status| status["ready"] == true);
        assert!(first.process.wait().unwrap().success());
    });
}

#[test]
fn an_interrupt_ends_it_in_order() {
    isolated("signal", |machine| {
        let mut running = machine.start();
        machine.wait(&mut running, "everything", |status| status["ready"] == true);
        let pid = nix::unistd::Pid::from_raw(running.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(running.process.wait().unwrap().success(), "{}", fs::read_to_string(&running.log).unwrap());
        assert!(!machine.run_dir().join("cluster.pid").exists());
    });
}

#[test]
fn down_ends_whatever_there_is() {
    isolated("down", |machine| {
        // Nothing at all.
        assert!(machine.down().status.success());
        // Running, and still starting.
        let mut running = machine.start();
        assert!(machine.down().status.success());
        running.process.wait().unwrap();
        assert!(!machine.data().exists());
        // Killed.
        drop(machine.start());
        assert!(machine.data().exists());
        assert!(machine.down().status.success());
        // Half made: only some namespaces.
        let path = format!("/run/netns/{}-node7", machine.name);
        assert!(
            Command::new("ip")
                .args(["netns", "add", path.rsplit('/').next().unwrap()])
                .status()
                .unwrap()
                .success()
        );
        assert!(machine.down().status.success());
        assert!(!fs::exists(path).unwrap());
    });
}

#[test]
fn killed_at_any_moment_it_starts_again() {
    isolated("moments", |machine| {
        for milliseconds in (0..200).step_by(8) {
            let mut process = machine.command("run").stderr(Stdio::null()).spawn().unwrap();
            std::thread::park_timeout(Duration::from_millis(milliseconds));
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let mut running = machine.start();
        machine.wait(&mut running, "everything", |status| status["ready"] == true);
        // And an end that is cut short is finished by the next one.
        for milliseconds in [1, 5, 20, 50] {
            let mut down = machine.command("down").stderr(Stdio::null()).spawn().unwrap();
            std::thread::park_timeout(Duration::from_millis(milliseconds));
            down.kill().unwrap();
            down.wait().unwrap();
        }
    });
}
