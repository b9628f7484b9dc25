//! `down`, `stop`, `kubeconfig`.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
    place::{Place, program},
    progress::Steps,
};
use bytes::Bytes;
use http::Method;
use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// Pods are stopped in parallel, within their grace periods.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(90);

/// Removes everything that belongs to the cluster, running or not.
pub async fn down(place: &Place) -> Outcome {
    let steps = Steps::new(false);
    steps
        .run("down", |note| async move {
            note.set("removing pods, namespaces, mounts, data");
            let program = program("cluster")?;
            let (name, data, run) = (place.name.clone(), place.data_dir(), place.run_dir());
            let output = tokio::task::spawn_blocking(move || {
                Command::new(program)
                    .args(["down", "--name", &name])
                    .arg("--data-dir")
                    .arg(data)
                    .arg("--run-dir")
                    .arg(run)
                    .stdin(Stdio::null())
                    .output()
            });
            let output = output.await.map_err(|e| Failure::new(Exit::Failed, e.to_string()))??;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(Failure::new(Exit::Failed, text.trim().trim_start_matches("error: ").to_owned()));
            }
            Ok::<_, Failure>("nothing is left".to_owned())
        })
        .await
}

/// Stops pods and the cluster process; data stays.
pub async fn stop(place: &Place) -> Outcome {
    let steps = Steps::new(false);
    steps
        .run("stop", |note| async move {
            if control::status(&place.socket()).await?.is_none() {
                return Ok("no cluster runs".to_owned());
            }
            note.set("stopping pods");
            control::call(
                &place.socket(),
                Method::POST,
                "/shutdown?pods=stop",
                Bytes::new(),
                SHUTDOWN_TIMEOUT,
            )
            .await?;
            let deadline = tokio::time::Instant::now() + SHUTDOWN_TIMEOUT;
            while control::status(&place.socket()).await?.is_some() {
                if tokio::time::Instant::now() > deadline {
                    return Err(Failure::new(Exit::TimedOut, "the cluster process did not end")
                        .fix(format!("its log says more: {}", place.log().display())));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, Failure>("stopped; meshctl up starts it again".to_owned())
        })
        .await
}

/// Prints the path of the kubeconfig.
pub fn kubeconfig(place: &Place) -> Outcome {
    let path = place.own_kubeconfig();
    if !path.exists() {
        return Err(Failure::new(Exit::Unreachable, format!("{} does not exist", path.display()))
            .fix("meshctl up makes it"));
    }
    println!("{}", path.display());
    Ok(())
}
