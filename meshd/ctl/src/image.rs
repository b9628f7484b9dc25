//! Images of our own programs: one static binary each, as an OCI archive (image-spec 1.1).

use crate::failure::Outcome;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// User of our own planes' programs; node rules let this user past the sidecar.
pub const MESH_USER: &str = "1337:1337";
/// User of applications: another one than [`MESH_USER`], or their connections would not go through the sidecar.
pub const APP_USER: &str = "1000:1000";

/// An image ready to be loaded.
pub struct Image {
    /// Its names, each with a tag; the first has the content in its tag.
    pub names: Vec<String>,
    /// The OCI archive.
    pub archive: Vec<u8>,
}

/// Packs `program` as `/<name>`, the image's entry point. The first name's tag is `<version>-<content>`, so that a changed program is
/// another image.
pub fn pack(
    repository: &str,
    version: &str,
    program: &Path,
    extra_tags: &[&str],
    user: &str,
) -> Outcome<Image> {
    let file_name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = std::fs::read(program)?;
    let layer = layer(&file_name, &bytes)?;
    let layer_digest = digest(&layer);
    let tag = format!("{version}-{}", &layer_digest["sha256:".len()..][..12]);
    let mut names = vec![format!("{repository}:{tag}")];
    names.extend(extra_tags.iter().map(|tag| format!("{repository}:{tag}")));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": [format!("/{file_name}")], "User": user, "WorkingDir": "/", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let manifests: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
            entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(':').next()});
            entry
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}).to_string();
    let mut archive = tar::Builder::new(Vec::with_capacity(layer.len() + 16384));
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    for blob in [&config, &layer, &manifest] {
        append(&mut archive, &format!("blobs/sha256/{}", &digest(blob)["sha256:".len()..]), blob, 0o644)?;
    }
    append(&mut archive, "index.json", index.as_bytes(), 0o644)?;
    Ok(Image { names, archive: archive.into_inner()? })
}

fn layer(file_name: &str, program: &[u8]) -> Outcome<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::with_capacity(program.len() + 8192));
    append(
        &mut layer,
        "etc/passwd",
        b"root:x:0:0:root:/:/\nproxy:x:1337:1337:proxy:/:/\napp:x:1000:1000:app:/:/\n",
        0o644,
    )?;
    append(&mut layer, "etc/group", b"root:x:0:\nproxy:x:1337:\napp:x:1000:\n", 0o644)?;
    append(&mut layer, file_name, program, 0o755)?;
    Ok(layer.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> Outcome {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    // No time in it: equal programs give equal images.
    header.set_mtime(0);
    header.set_cksum();
    Ok(archive.append_data(&mut header, path, bytes)?)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}
