use jiff::Timestamp;

use super::*;
use crate::image::ImageConfig;

fn image() -> Image {
    Image {
        id: "sha256:1".into(),
        names: vec![],
        size_bytes: 0,
        loaded_at: Timestamp::UNIX_EPOCH,
        config: ImageConfig {
            entrypoint: vec!["/app".into()],
            cmd: vec!["serve".into()],
            env: vec!["A=1".into(), "AB=2".into(), "broken".into()],
            working_dir: "srv".into(),
            ..ImageConfig::default()
        },
        layers: vec![],
    }
}

fn build(spec: &ContainerSpec, sandbox: &SandboxSpec, devices: bool) -> Result<Bundle, Error> {
    let limits = HostLimits { nofile: 20_000, oom_score_adj_min: Some(-10), devices };
    bundle(&Input {
        spec,
        image: &image(),
        user: (5, 6, vec![7]),
        sandbox,
        sandbox_dir: Path::new("/run/x"),
        cgroup: "m/pod/c",
        cgroup_views: vec![("memory".into(), "/sys/fs/cgroup/memory/m/pod/c".into())],
        devices: vec![],
        limits,
    })
}

#[test]
fn command_and_arguments_replace_the_images() {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (command, args, result) in
        [("", "", "/app serve"), ("", "x y", "/app x y"), ("/c", "", "/c"), ("/c d", "x", "/c d x")]
    {
        let spec = ContainerSpec { command: words(command), args: words(args), ..ContainerSpec::default() };
        assert_eq!(arguments(&spec, &image()), words(result));
    }
}

#[test]
fn environment_is_merged_by_name() {
    let spec = ContainerSpec { env: vec![("A".into(), "9".into())], tty: true, ..ContainerSpec::default() };
    let sandbox = SandboxSpec { hostname: "web-0".into(), ..SandboxSpec::default() };
    let bundle = build(&spec, &sandbox, true).unwrap();
    let env = bundle.spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, [DEFAULT_PATH, "HOSTNAME=web-0", "TERM=xterm", "A=9", "AB=2", "HOME=/"]);
}

#[test]
fn limits_are_clamped_to_what_this_process_may_set() {
    let mut spec = ContainerSpec::default();
    spec.resources.oom_score_adj = Some(-997);
    let bundle = build(&spec, &SandboxSpec::default(), true).unwrap();
    let process = bundle.spec.process().as_ref().unwrap();
    assert_eq!(process.oom_score_adj(), Some(-10));
    assert_eq!(process.cwd(), Path::new("/srv"));
    assert_eq!(process.user().additional_gids(), &Some(vec![7]));
}

#[test]
fn privileged_means_no_filter_no_masks_all_devices() {
    let spec =
        ContainerSpec { privileged: true, seccomp: Seccomp::RuntimeDefault, ..ContainerSpec::default() };
    let bundle = build(&spec, &SandboxSpec::default(), true).unwrap();
    let linux = bundle.spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert_eq!(linux.masked_paths(), &Some(vec![]));
    assert_eq!(bundle.device_rules[0].to_string(), "a *:* rwm");
}

#[test]
fn without_device_rules_nobody_makes_nodes() {
    let held = |devices| {
        let bundle = build(&ContainerSpec::default(), &SandboxSpec::default(), devices).unwrap();
        let capabilities = bundle.spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        capabilities.bounding().as_ref().unwrap().contains(&Capability::Mknod)
    };
    assert!(held(true));
    assert!(!held(false));
}

#[test]
fn namespaces_follow_the_sandbox() {
    let kinds = |sandbox: &SandboxSpec| {
        let bundle = build(&ContainerSpec::default(), sandbox, true).unwrap();
        let namespaces = bundle.spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        namespaces.iter().map(|n| (n.typ(), n.path().clone())).collect::<Vec<_>>()
    };
    let own = kinds(&SandboxSpec { net_ns: "/run/x/net".into(), ..SandboxSpec::default() });
    assert!(own.contains(&(LinuxNamespaceType::Pid, None)));
    assert!(own.contains(&(LinuxNamespaceType::Network, Some("/run/x/net".into()))));
    let shared = kinds(&SandboxSpec { share_pid: true, ..SandboxSpec::default() });
    assert!(shared.contains(&(LinuxNamespaceType::Pid, Some("/run/x/pid".into()))));
    let host = kinds(&SandboxSpec { host_pid: true, host_ipc: true, ..SandboxSpec::default() });
    assert!(host.iter().all(|(kind, _)| !matches!(kind, LinuxNamespaceType::Pid | LinuxNamespaceType::Ipc)));
}

#[test]
fn a_container_without_a_command_is_refused() {
    let mut image = image();
    image.config.entrypoint.clear();
    image.config.cmd.clear();
    assert!(arguments(&ContainerSpec::default(), &image).is_empty());
}
