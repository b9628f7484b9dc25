//! `meshctl up`: a cluster, the mesh, and with `--demo` an application with traffic. Repeatable: a second run changes nothing.

use crate::{
    cluster_client::Cluster,
    control,
    failure::{Exit, Failure, Outcome},
    figures, image, install,
    place::{Place, program},
    preflight,
    presence::{self, Presence},
    progress::{Note, Steps},
    settings::{self, Asked, Settings},
};
use bytes::Bytes;
use clap::Args;
use http::Method;
use nix::libc::{SIGKILL, SIGTERM};
use policies_api::names::{BOOKINFO_IMAGE, MESHD_IMAGE, SIDECAR_IMAGE};
use serde_json::Value;
use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A cluster that has not everything ready by then never will.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a cluster with the mesh; `--demo` adds an application and traffic.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Also start the sample application, with traffic.
    #[arg(long)]
    demo: bool,
    /// Number of nodes, each a network namespace of this machine [default: as before, else 2].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: Option<u8>,
    /// Port of the Kubernetes API on 127.0.0.1 [default: as before, else 6443].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
    /// Port of the ingress gateway on 127.0.0.1 [default: as before, else 8080].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ingress_port: Option<u16>,
    /// Start the cluster only, without the mesh.
    #[arg(long, conflicts_with = "demo")]
    no_mesh: bool,
    /// One JSON object for each step.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Runs the command.
pub async fn run(place: &Place, up: &Up) -> Outcome {
    let steps = Steps::new(up.output == "json");
    let asked = Asked { nodes: up.nodes, api_port: up.api_port, ingress_port: up.ingress_port };
    let settings = settings::settle(place, asked).await?;
    steps.run("preflight", |_| async { preflight::check(place, &settings).await }).await?;
    let mut present = None;
    steps
        .run("cluster", |note| async {
            let status = start_cluster(place, &settings, note).await?;
            present = Some(Presence::new(place.socket(), &status));
            Ok::<_, Failure>(format!(
                "API on 127.0.0.1:{}, {} nodes ready, DNS",
                settings.api_port, settings.nodes
            ))
        })
        .await?;
    match present {
        Some(present) if !up.no_mesh => present.during(mesh(&steps, place, up, &settings)).await,
        _ => Ok(()),
    }
}

/// What comes into the cluster once it runs.
async fn mesh(steps: &Steps, place: &Place, up: &Up, settings: &Settings) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let demo_too = up.demo;
    // Some hundred megabytes to read and to sum up, beside which a person and a `down` must be heard.
    let packed = tokio::task::spawn_blocking(move || pack_images(demo_too)).await;
    let packed = packed.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
    let images = packed.images();
    steps.run("images", |note| load_images(place, packed, note)).await?;
    steps
        .run("mesh", |note| {
            let (cluster, images) = (&cluster, &images);
            async move {
                let kinds = install::kinds(cluster, &note).await?;
                let plane = install::control_plane(cluster, images, &note).await?;
                let gateway = install::gateway(cluster, images, &note).await?;
                let changed = kinds.changed + plane.changed + gateway.changed;
                Ok::<_, Failure>(format!(
                    "control plane and gateway run, {} policy kinds{}",
                    kinds.objects,
                    changes(changed)
                ))
            }
        })
        .await?;
    if up.demo {
        demo(steps, place, up, settings, &cluster, &images).await?;
    }
    Ok(())
}

async fn demo(
    steps: &Steps,
    place: &Place,
    up: &Up,
    settings: &Settings,
    cluster: &Cluster,
    images: &install::Images,
) -> Outcome {
    steps
        .run("demo", |note| async move {
            let count = install::demo(cluster, images, &note).await?;
            Ok::<_, Failure>(format!("bookinfo: 6 workloads with sidecars{}", changes(count.changed)))
        })
        .await?;
    let url = format!("http://127.0.0.1:{}/productpage", settings.ingress_port);
    steps
        .run("traffic", |note| {
            let url = url.clone();
            async move {
                install::traffic(cluster, images, &note).await?;
                note.set(format!("waiting for {url}"));
                figures::answering(&url, Duration::from_secs(60)).await?;
                Ok::<_, Failure>(format!("20 requests/s through {url}"))
            }
        })
        .await?;
    if up.output == "json" {
        return Ok(());
    }
    let live = figures::over(cluster, Duration::from_secs(2)).await?;
    println!("   {live}");
    println!("   kubeconfig  {}", place.own_kubeconfig().display());
    println!("   next:       meshctl canary reviews v3 --to 50");
    println!("               meshctl fault abort ratings --status 503 --percent 10");
    println!("               meshctl stat");
    println!("up in {:.1}s", steps.seconds());
    Ok(())
}

fn changes(changed: usize) -> String {
    if changed == 0 { ", nothing changed".into() } else { String::new() }
}

/// Starts the cluster process unless it runs, and waits until it is ready. Returns its status.
async fn start_cluster(place: &Place, settings: &Settings, note: Note) -> Outcome<Value> {
    let socket = place.socket();
    let mut child = None;
    if control::status(&socket).await?.is_none() {
        note.set("starting the cluster process");
        child = Some(spawn_cluster(place, settings)?);
    }
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        let ended = child.as_mut().map(Child::try_wait).transpose()?.flatten();
        match (control::status(&socket).await?, ended) {
            (Some(status), _) if !status["ending"].is_null() => return Err(presence::gone()),
            (Some(status), _) if status["ready"] == true => return Ok(status),
            // Another `up` was faster: its cluster will do.
            (Some(status), Some(_)) => {
                child = None;
                note.set(waiting_for(&status));
            }
            (Some(status), None) => note.set(waiting_for(&status)),
            (None, Some(status)) => return Err(died(place, status)),
            (None, None) if child.is_none() => return Err(presence::gone()),
            (None, None) => note.set("waiting for the cluster process"),
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Failure::new(
                Exit::TimedOut,
                format!("the cluster is not ready after {START_TIMEOUT:?}"),
            )
            .fix(format!("its log says more: {}", place.log().display())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts `cluster run` in a session of its own, so that it outlives this command and its terminal.
fn spawn_cluster(place: &Place, settings: &Settings) -> Outcome<Child> {
    let program = program("cluster")?;
    std::fs::create_dir_all(place.data_dir())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.log())?;
    let mut command = Command::new(program);
    command
        .args(["run", "--name", &place.name, "--nodes", &settings.nodes.to_string()])
        .args(["--api-port", &settings.api_port.to_string()])
        .args(["--ingress-port", &settings.ingress_port.to_string()])
        .arg("--data-dir")
        .arg(place.data_dir())
        .arg("--run-dir")
        .arg(place.run_dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    Ok(command.spawn()?)
}

/// Why the process that was started has ended, in its own words.
fn died(place: &Place, status: ExitStatus) -> Failure {
    // It ends by itself only with words; `stop` asks it to end, and `down` may have to use a signal.
    let told = status.success() || matches!(status.signal(), Some(SIGTERM | SIGKILL));
    if told {
        return presence::gone();
    }
    // Its log lies in the data directory, which only `down` deletes.
    let Ok(log) = std::fs::read_to_string(place.log()) else { return presence::gone() };
    let said = log
        .lines()
        .rev()
        .find(|line| line.starts_with("cluster: ") || line.contains("ERROR"))
        .or(log.lines().last());
    let said =
        said.map_or_else(|| status.to_string(), |line| line.trim_start_matches("cluster: ").to_owned());
    Failure::new(Exit::Failed, said).fix(format!("its log says more: {}", place.log().display()))
}

fn waiting_for(status: &Value) -> String {
    let components = status["components"].as_object();
    let waiting: Vec<&str> = components
        .into_iter()
        .flatten()
        .filter(|(_, c)| c["ready"] != true)
        .map(|(name, _)| name.as_str())
        .collect();
    format!("waiting for {}", if waiting.is_empty() { "components".into() } else { waiting.join(", ") })
}

/// What was built beside this program, packed.
struct Packed {
    meshd: image::Image,
    sidecar: image::Image,
    bookinfo: Option<image::Image>,
}

impl Packed {
    fn images(&self) -> install::Images {
        let first = |image: &image::Image| image.names.first().cloned().unwrap_or_default();
        install::Images {
            meshd: first(&self.meshd),
            sidecar: first(&self.sidecar),
            bookinfo: self.bookinfo.as_ref().map(first).unwrap_or_default(),
        }
    }
}

fn pack_images(demo: bool) -> Outcome<Packed> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(Packed {
        meshd: image::pack(MESHD_IMAGE, version, &program("meshd")?, &[], image::MESH_USER)?,
        sidecar: image::pack(SIDECAR_IMAGE, version, &program("sidecar")?, &["latest"], image::MESH_USER)?,
        bookinfo: demo
            .then(|| {
                image::pack(BOOKINFO_IMAGE, version, &program("bookinfo")?, &["latest"], image::APP_USER)
            })
            .transpose()?,
    })
}

async fn load_images(place: &Place, packed: Packed, note: Note) -> Outcome<String> {
    let known = control::call(&place.socket(), Method::GET, "/images", Bytes::new(), Duration::from_secs(10))
        .await?
        .to_string();
    let (mut loaded, mut total) = (0, 0);
    for image in [Some(packed.meshd), Some(packed.sidecar), packed.bookinfo].into_iter().flatten() {
        total += 1;
        if image.names.iter().all(|name| known.contains(&format!("{name}\""))) && !known.is_empty() {
            continue;
        }
        note.set(format!("loading {}", image.names[0]));
        load(&place.socket(), image.archive).await?;
        loaded += 1;
    }
    Ok(if loaded == 0 {
        format!("{total} images, all there")
    } else {
        format!("{loaded} of {total} images loaded")
    })
}

/// Hands an archive to the cluster.
pub async fn load(socket: &Path, archive: Vec<u8>) -> Outcome<Value> {
    control::call(socket, Method::POST, "/images", archive.into(), Duration::from_secs(120)).await
}
