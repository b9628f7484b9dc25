//! `tap`: requests of one proxy as they end; `why`: what became of one request, at every proxy it passed.

use crate::{
    cluster_client::Cluster,
    failure::{Exit, Failure, Outcome},
    output::Format,
    place::Place,
    verbs::proxy::{admin, find},
};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;

/// Proxies that are asked at once.
const ASKED_AT_ONCE: usize = 8;

/// What to watch.
#[derive(Debug, clap::Args)]
pub struct Tap {
    /// A pod, or `deploy/<name>` for one of its pods; `<name>.<namespace>` for another namespace.
    pod: String,
    /// Beginning of the path.
    #[arg(long, default_value = "")]
    path: String,
    /// Method, such as GET.
    #[arg(long, default_value = "")]
    method: String,
    /// Status, such as 503 or 5xx.
    #[arg(long, default_value = "")]
    status: String,
    /// Only requests that failed.
    #[arg(long)]
    failed: bool,
    /// Ends after so many requests.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    max: u64,
    /// Ends after so many seconds; 0: not by itself.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Namespace of the pod.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Form of the result: a line of text or of JSON a request.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Which request.
#[derive(Debug, clap::Args)]
pub struct Why {
    /// Its `x-request-id`.
    request_id: String,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Watches one proxy.
pub async fn tap(place: &Place, tap: Tap) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let (pod, namespace) = find(&cluster, &tap.pod, &tap.namespace).await?;
    let id = format!("meshctl-{}", std::process::id());
    let mut path = format!("/tap?id={id}");
    for (key, value) in [("path", &tap.path), ("method", &tap.method), ("status", &tap.status)] {
        path.push_str(&format!("&{key}={}", encode(value)));
    }
    if tap.failed {
        path.push_str("&failed");
    }
    let watch = async {
        let mut left = tap.max;
        while left > 0 {
            let answer = admin(&cluster, &namespace, &pod, &format!("{path}&max={}", left.min(500))).await?;
            let answer: Value = serde_json::from_str(&answer)?;
            for event in answer["events"].as_array().into_iter().flatten() {
                left -= 1;
                println!(
                    "{}",
                    if matches!(tap.output, Format::Table) { line(event) } else { event.to_string() }
                );
            }
            if let Some(dropped) = answer["dropped"].as_u64().filter(|dropped| *dropped > 0) {
                eprintln!("({dropped} requests more than could be shown)");
            }
        }
        Outcome::Ok(())
    };
    let limit = async {
        match tap.seconds {
            0 => std::future::pending().await,
            seconds => tokio::time::sleep(std::time::Duration::from_secs(seconds)).await,
        }
    };
    let ended = tokio::select! {
        ended = watch => ended,
        () = limit => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    // The proxy forgets by itself too, only later.
    let _ = admin(&cluster, &namespace, &pod, &format!("/tap?id={id}&end")).await;
    ended
}

/// Asks every proxy what it knows of a request that failed.
pub async fn why(place: &Place, why: Why) -> Outcome {
    let cluster = Cluster::open(place).await?;
    let api: Api<Pod> = Api::all(cluster.client.clone());
    let pods = api.list(&ListParams::default()).await?.items;
    let path = format!("/failures?request_id={}", encode(&why.request_id));
    let asked = pods.iter().filter(|pod| crate::figures::has_proxy(pod)).map(|pod| {
        let (cluster, path) = (&cluster, &path);
        async move {
            let answer = admin(cluster, &pod.namespace().unwrap_or_default(), &pod.name_any(), path).await;
            answer.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok())
        }
    });
    let answers: Vec<Option<Value>> = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await;
    let silent = answers.iter().filter(|answer| answer.is_none()).count();
    let known = answers.iter().flatten().filter_map(|answer| answer["failures"].as_array());
    let mut found: Vec<&Value> = known.flatten().collect();
    found.sort_by_key(|event| event["time"].as_str());
    if silent > 0 {
        eprintln!("({silent} proxies did not answer)");
    }
    if found.is_empty() {
        let message = format!("no proxy remembers a failure of request `{}`", why.request_id);
        return Err(Failure::new(Exit::Failed, message)
            .fix("proxies remember their last 128 failures; `meshctl tap POD --failed` shows new ones"));
    }
    if crate::output::structured(why.output, &serde_json::to_value(&found)?)? {
        return Ok(());
    }
    for event in found {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        println!("{}", line(event));
        println!("  hop      {}", text("/failure/hop"));
        println!("  cause    {} {}", text("/failure/flag"), text("/failure/details"));
        if !matches!(text("/transportFailure").as_str(), "" | "-") {
            println!("  socket   {}", text("/transportFailure"));
        }
        println!("  hint     {}", text("/failure/hint"));
    }
    Ok(())
}

/// One request in one line.
fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!(
        "{} {} {} {}{} {} {:.1}ms {}",
        text("time"),
        text("proxy"),
        text("method"),
        text("authority"),
        text("path"),
        event["status"],
        event["durationMs"].as_f64().unwrap_or_default(),
        text("cluster"),
    );
    let failure = &event["failure"];
    if let (Some(flag), Some(details)) = (failure["flag"].as_str(), failure["details"].as_str()) {
        line.push_str(&format!(" {flag} {details}"));
    }
    line.push_str(&format!(" {}", text("requestId")));
    line
}

/// A value of a query.
fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_one_line() {
        let event = json!({
            "time": "t", "proxy": "a-1", "method": "GET", "authority": "b", "path": "/c", "status": 503, "durationMs": 1.26,
            "cluster": "outbound|80||b", "requestId": "r", "failure": {"flag": "UH", "details": "no_healthy_upstream"},
        });
        assert_eq!(line(&event), "t a-1 GET b/c 503 1.3ms outbound|80||b UH no_healthy_upstream r");
        assert_eq!(encode("/a b&c=\u{e9}"), "/a%20b%26c%3D%C3%A9");
    }
}
