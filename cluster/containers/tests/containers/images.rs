//! Images: what is accepted, what is refused, what remains; and another runtime's opinion of our bundles.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;

use cluster_containers::{ImageError, ImageStore};

use crate::support::{IMAGE, Item, Node, archive, digest, docker, gzip, layer, oci};

fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    (dir, store)
}

async fn load(store: &ImageStore, archive: Vec<u8>) -> Result<Vec<cluster_containers::Image>, ImageError> {
    store.load(Cursor::new(archive)).await
}

fn small() -> Vec<Vec<u8>> {
    vec![layer(&[
        Item::Dir("d", 0o755),
        Item::File("d/gone", 0o644, b"1"),
        Item::File("d/kept", 0o640, b"2"),
    ])]
}

#[tokio::test]
async fn both_archive_forms_are_the_same_image() {
    let (dir, store) = store();
    let process = serde_json::json!({
        "Entrypoint": ["/a"], "Cmd": ["b"], "User": "7:8", "WorkingDir": "/w", "Env": ["A=1"],
        "ExposedPorts": {"80/tcp": {}}, "Labels": {"l": "v"}, "StopSignal": "SIGQUIT",
    });
    let first = load(&store, archive(&oci("app:1", &small(), &process))).await.unwrap();
    let second =
        load(&store, gzip(&archive(&docker("mirror.test/app:2", &small(), &process)))).await.unwrap();
    assert_eq!(first[0].id, second[0].id);
    assert_eq!(first[0].names, ["docker.io/library/app:1"]);
    assert_eq!(second[0].names, ["docker.io/library/app:1", "mirror.test/app:2"]);
    let image = store.resolve("app:1").await.unwrap().unwrap();
    assert_eq!(image.config.entrypoint, ["/a"]);
    assert_eq!(
        (image.config.user.as_str(), image.config.exposed_ports.as_slice()),
        ("7:8", &["80/tcp".to_owned()][..])
    );
    assert_eq!((image.config.stop_signal.as_deref(), image.size_bytes), (Some("SIGQUIT"), 2));
    assert_eq!(store.user_of(&image).await.unwrap(), (7, 8, vec![]));
    for name in ["docker.io/library/app:1", "mirror.test/app:2", &image.id, &image.id[7..19]] {
        assert_eq!(store.resolve(name).await.unwrap().map(|i| i.id), Some(image.id.clone()), "{name}");
    }
    assert!(store.resolve("app").await.unwrap().is_none(), "`latest` is another image");
    assert!(matches!(store.resolve("NO!").await, Err(ImageError::InvalidName { .. })));
    assert_eq!(
        fs::metadata(dir.path().join("images")).unwrap().mode() & 0o777,
        0o700,
        "only root may look in"
    );
    let again = ImageStore::open(&dir.path().join("images")).unwrap();
    assert_eq!(again.list().await.unwrap(), store.list().await.unwrap());
}

#[tokio::test]
async fn layers_hide_what_is_below() {
    let node = Node::start().await;
    let probe = fs::read(crate::support::PROBE).unwrap();
    let layers = [
        small().remove(0),
        layer(&[
            Item::Dir("d", 0o755),
            Item::File("d/.wh.gone", 0o644, b""),
            Item::Dir("o", 0o755),
            Item::File("o/old", 0o644, b"3"),
            Item::Symlink("d/link", "kept"),
        ]),
        layer(&[
            Item::Dir("o", 0o755),
            Item::File("o/.wh..wh..opq", 0o644, b""),
            Item::File("o/new", 0o644, b"4"),
            Item::Hardlink("o/same", "o/new"),
            Item::File("probe", 0o755, &probe),
        ]),
    ];
    let process = serde_json::json!({"Entrypoint": ["/probe"]});
    let image = node.load(&archive(&oci("layers:1", &layers, &process))).await.remove(0);
    let dir = node.config.data_dir.join("images/layers").join(&image.layers[1][7..39]);
    let meta = fs::symlink_metadata(dir.join("d/gone")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
    let mut spec = node.spec("list /d -- list /o -- cat /o/same -- cat /d/link");
    spec.image = "layers:1".into();
    let text = node.run(spec).await.1;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["42", "kept", "link", "new", "same"]);
}

#[tokio::test]
async fn damaged_and_hostile_archives_are_refused_whole() {
    let (dir, store) = store();
    let process = serde_json::json!({});
    let of = |items: &[Item<'_>]| archive(&oci("bad:1", &[layer(items)], &process));
    let tampered = |change: fn(&mut Vec<(String, Vec<u8>)>)| {
        let mut files = oci("bad:1", &small(), &process);
        change(&mut files);
        archive(&files)
    };
    let victim = dir.path().join("victim");
    let absolute = victim.to_str().unwrap();
    let mut truncated = archive(&oci("bad:1", &small(), &process));
    truncated.truncate(truncated.len() / 2);
    let mut docker_wrong = docker("bad:1", &small(), &process);
    docker_wrong[1].1 = layer(&[Item::File("other", 0o644, b"x")]);
    let nameless = oci("bad:1", &small(), &process)
        .into_iter()
        .map(|(name, data)| {
            (
                name,
                String::from_utf8(data.clone())
                    .map_or(data, |text| text.replace("io.containerd.image.name", "x").into_bytes()),
            )
        })
        .collect::<Vec<_>>();
    let cases = [
        ("leaves the image", of(&[Item::File("../../victim", 0o644, b"x")])),
        ("leaves the image", of(&[Item::File("a/../../victim", 0o644, b"x")])),
        ("leaves the image", of(&[Item::Hardlink("a", "../../../../etc/passwd")])),
        ("has the digest", tampered(|files| files[1].1[20] ^= 1)),
        ("is missing", tampered(|files| drop(files.remove(0)))),
        ("neither index.json", archive(&[("readme".into(), b"hi".to_vec())])),
        ("cannot be read", tampered(|files| files.last_mut().unwrap().1 = b"{".to_vec())),
        ("not a readable tar archive", b"this is not a tar archive at all, just text".repeat(40)),
        ("", truncated),
        ("has the digest", archive(&docker_wrong)),
        ("has no name", archive(&nameless)),
        (
            "leaves the archive",
            archive(&[(
                "manifest.json".into(),
                br#"[{"Config":"../../../etc/passwd","Layers":[]}]"#.to_vec(),
            )]),
        ),
    ];
    for (expected, bytes) in cases {
        let error = load(&store, bytes).await.unwrap_err();
        assert!(matches!(&error, ImageError::Refused(why) if why.contains(expected)), "{expected}: {error}");
        assert!(store.list().await.unwrap().is_empty());
    }
    // A link out of the image is followed inside it: the file lands below the layer.
    let through = of(&[Item::Symlink("out", absolute), Item::File("out/x", 0o644, b"x")]);
    load(&store, through).await.unwrap_or_default();
    assert!(!victim.exists() && !dir.path().join("images/victim").exists());
    let left: Vec<_> = fs::read_dir(dir.path().join("images/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn an_interrupted_load_is_forgotten_and_can_be_repeated() {
    let (dir, store) = store();
    let bytes = archive(&oci("app:1", &small(), &serde_json::json!({})));
    let root = dir.path().join("images");
    // As if the machine had stopped in the middle: temporary files, and a layer that no index names.
    fs::create_dir_all(root.join("tmp/layer/x")).unwrap();
    let diff_id = digest(&small()[0]);
    fs::create_dir_all(root.join("layers").join(&diff_id[..32]).join("half")).unwrap();
    let store_again = ImageStore::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    load(&store_again, bytes).await.unwrap();
    assert!(!root.join("layers").join(&diff_id[..32]).join("half").exists());
    assert_eq!(fs::read(root.join("layers").join(&diff_id[..32]).join("d/kept")).unwrap(), b"2");
    assert!(store.remove("app:1").await.unwrap());
    assert!(!store.remove("app:1").await.unwrap());
    assert_eq!(store.collect(&[format!("sha256:{diff_id}")]).await.unwrap(), 0, "a container uses it");
    assert_eq!(store.collect(&[]).await.unwrap(), 2);
    assert!(!root.join("layers").join(&diff_id[..32]).exists());
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_full_disk_refuses_an_image_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let flags = nix::mount::MsFlags::MS_NOSUID;
    nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=4m")).unwrap();
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    load(&store, archive(&oci("small:1", &small(), &serde_json::json!({})))).await.unwrap();
    for (what, bytes) in [("unpacked", vec![0; 8 << 20]), ("kept", noise(8 << 20))] {
        let large = layer(&[Item::File("large", 0o644, &bytes)]);
        let error =
            load(&store, archive(&oci("large:1", &[large], &serde_json::json!({})))).await.unwrap_err();
        let full = matches!(&error, ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
        assert!(full, "{what}: {error:?}");
        assert_eq!(store.list().await.unwrap().len(), 1);
        assert_eq!(fs::read_dir(dir.path().join("images/tmp")).unwrap().count(), 0);
    }
    load(&store, archive(&oci("other:1", &small(), &serde_json::json!({"Cmd": ["x"]})))).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);
    drop(store);
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused() {
    let (_dir, store) = store();
    let mut files = docker("app:1", &small(), &serde_json::json!({}));
    files[0].1 = String::from_utf8(files[0].1.clone())
        .unwrap()
        .replace("amd64", "s390x")
        .replace("arm64", "s390x")
        .into_bytes();
    let error = load(&store, archive(&files)).await.unwrap_err();
    assert!(error.to_string().contains("it is for linux/s390x"), "{error}");
}

#[tokio::test]
async fn a_name_moves_to_the_image_loaded_last() {
    let (_dir, store) = store();
    let one =
        load(&store, archive(&oci("app:1", &small(), &serde_json::json!({"Cmd": ["1"]})))).await.unwrap();
    let two =
        load(&store, archive(&oci("app:1", &small(), &serde_json::json!({"Cmd": ["2"]})))).await.unwrap();
    assert_ne!(one[0].id, two[0].id);
    assert_eq!(store.resolve("app:1").await.unwrap().unwrap().id, two[0].id);
    assert_eq!(store.list().await.unwrap().len(), 2, "the old one stays until it is collected");
    store.collect(&[]).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_oci_runtime_runs_our_bundles() {
    let node = Node::start().await;
    let mut spec = node.spec("print foreign -- cat /proc/self/status -- exit 4");
    spec.seccomp = cluster_containers::Seccomp::RuntimeDefault;
    spec.no_new_privileges = true;
    spec.caps_drop = vec!["ALL".into()];
    spec.user.uid = Some(1000);
    let id = node.runtime.create_container(spec).await.unwrap();
    let dir = node.config.run_dir.join("containers").join(id.as_str());
    let shim: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("shim.json")).unwrap()).unwrap();
    let rootfs = &shim["rootfs"];
    let text = |key: &str| rootfs[key].as_str().unwrap().to_owned();
    let layers = text("layers_dir");
    let lower: Vec<_> = rootfs["lower"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| format!("{layers}/{}", l.as_str().unwrap()))
        .collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), text("upper"), text("work"));
    let target = dir.join("rootfs");
    nix::mount::mount(
        Some("overlay"),
        &target,
        Some("overlay"),
        nix::mount::MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let output = Command::new("runc")
        .arg("--root")
        .arg(node.dir.path().join("runc"))
        .args(["run", "--bundle"])
        .arg(&dir)
        .arg(&id.as_str()[..16])
        .output();
    nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let output = output.expect("runc is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("foreign\n"), "{text}");
    for expected in ["Uid:\t1000", "Seccomp:\t2", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let image = node.runtime.images().resolve(IMAGE).await.unwrap().unwrap();
    assert_eq!(node.runtime.container_status(&id).await.unwrap().image_id, image.id);
    // It also uses hierarchies that we do not, and leaves the parents there.
    for dir in node.cgroups() {
        for part in ["node1/podpod", "node1", ""] {
            let _ = fs::remove_dir(dir.join(part));
        }
    }
}
