//! `GET /reviews/<id>`: two reviews; v2 and v3 add stars from `ratings`.

use crate::client::{Client, id_in};
use base_runtime::http_server::{Handler, handler as make, json, text};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// How stars look, and how long `reviews` waits for them. Version 3 is the impatient one: a delay fault in `ratings` shows the difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stars {
    None,
    Black,
    Red,
}

impl Stars {
    pub fn of_version(version: &str) -> Self {
        match version {
            "v2" => Self::Black,
            "v3" => Self::Red,
            _ => Self::None,
        }
    }

    fn color(self) -> &'static str {
        if self == Self::Red { "red" } else { "black" }
    }

    fn patience(self) -> Duration {
        if self == Self::Red { Duration::from_millis(2500) } else { Duration::from_secs(10) }
    }
}

pub fn handler(stars: Stars, ratings: String) -> Handler {
    let client = Client::new();
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    make(move |request| {
        let (client, ratings, pod) = (client.clone(), ratings.clone(), pod.clone());
        async move {
            let path = request.uri().path();
            if path == "/health" {
                return json(StatusCode::OK, r#"{"status":"Reviews is healthy"}"#);
            }
            let Some(id) = id_in(path, "/reviews/") else { return text(StatusCode::NOT_FOUND, "not found") };
            let rating = rate(stars, &client, &ratings, id, request.headers()).await;
            json(StatusCode::OK, reviews(id, &pod, rating).to_string())
        }
    })
}

async fn rate(stars: Stars, client: &Client, ratings: &str, id: u64, headers: &HeaderMap) -> Rating {
    if stars == Stars::None {
        return Rating::NotShown;
    }
    match client.get_json(&format!("{ratings}/ratings/{id}"), headers, stars.patience()).await {
        Ok(answer) => Rating::Shown { color: stars.color(), answer },
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "No ratings");
            Rating::Unavailable
        }
    }
}

enum Rating {
    NotShown,
    Shown { color: &'static str, answer: Value },
    Unavailable,
}

fn reviews(id: u64, pod: &str, rating: Rating) -> Value {
    let one = |reviewer: &str, words: &str| {
        let mut review = json!({"reviewer": reviewer, "text": words});
        match &rating {
            Rating::NotShown => {}
            Rating::Shown { color, answer } => {
                review["rating"] = json!({"stars": answer["ratings"][reviewer], "color": color})
            }
            Rating::Unavailable => {
                review["rating"] = json!({"error": "Ratings service is currently unavailable"})
            }
        }
        review
    };
    json!({
        "id": id.to_string(), "podname": pod, "clustername": "null",
        "reviews": [one("Reviewer1", "Three errors, one evening, and nobody to stop laughing."), one("Reviewer2", "Fun in parts; the twins deserve better servants.")],
    })
}
