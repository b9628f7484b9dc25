//! The page: `GET /productpage`, sign-in by a cookie, and the same data as JSON under `/api/v1/products`.

use crate::{client::Client, page};
use base_runtime::http_server::{Handler, handler as make, json, text};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// The page waits this long for each try of a called service.
const PATIENCE: Duration = Duration::from_secs(3);
/// It asks `reviews` twice, which is what makes a 7 s delay in `ratings` visible as an error here and not there.
const REVIEW_TRIES: usize = 2;
const SESSION: &str = "session-user=";

struct Services {
    client: Client,
    details: String,
    reviews: String,
    ratings: String,
}

pub fn handler(details: String, reviews: String, ratings: String) -> Handler {
    let services = Arc::new(Services { client: Client::new(), details, reviews, ratings });
    make(move |request| {
        let services = services.clone();
        async move { services.answer(request).await }
    })
}

impl Services {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let mut headers = request.headers().clone();
        let user = signed_in(&headers);
        if let Some(user) = user.as_deref().and_then(|u| HeaderValue::from_str(u).ok()) {
            headers.insert("end-user", user);
        }
        match path.trim_end_matches('/') {
            "/health" => text(StatusCode::OK, "Product page is healthy"),
            "" | "/index.html" => html(
                StatusCode::OK,
                "<!DOCTYPE html><title>Bookinfo</title><a href=\"/productpage\">The book</a>\n".into(),
            ),
            "/productpage" => {
                let (details, reviews) = tokio::join!(self.details(0, &headers), self.reviews(0, &headers));
                html(StatusCode::OK, page::render(user.as_deref(), &details, &reviews))
            }
            "/login" => sign_in(request).await,
            "/logout" => redirect(&format!("{SESSION}; Max-Age=0; Path=/")),
            "/api/v1/products" => json(StatusCode::OK, r#"[{"id":0,"title":"The Comedy of Errors"}]"#),
            path => match path
                .strip_prefix("/api/v1/products/")
                .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            {
                Some((id, part)) if id.parse::<u64>().is_ok() => {
                    self.api(id.parse().unwrap_or_default(), part, &headers).await
                }
                _ => text(StatusCode::NOT_FOUND, "not found"),
            },
        }
    }

    async fn api(&self, id: u64, part: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let answer = match part {
            "" => self.details(id, headers).await,
            "reviews" => self.reviews(id, headers).await,
            "ratings" => self.get(&format!("{}/ratings/{id}", self.ratings), headers).await,
            _ => return text(StatusCode::NOT_FOUND, "not found"),
        };
        match answer {
            Ok(value) => json(StatusCode::OK, value.to_string()),
            Err(error) => {
                json(StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({"error": error}).to_string())
            }
        }
    }

    async fn details(&self, id: u64, headers: &HeaderMap) -> page::Part {
        self.get(&format!("{}/details/{id}", self.details), headers).await
    }

    async fn reviews(&self, id: u64, headers: &HeaderMap) -> page::Part {
        let url = format!("{}/reviews/{id}", self.reviews);
        let mut last = Err(String::new());
        for _ in 0..REVIEW_TRIES {
            last = self.get(&url, headers).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Value, String> {
        self.client.get_json(url, headers, PATIENCE).await.map_err(|error| {
            let text = format!("{error:#}");
            tracing::warn!(error = text, "A part of the page is missing");
            text
        })
    }
}

/// The signed-in user: a cookie of ours, or the `end-user` header that tests send.
fn signed_in(headers: &HeaderMap) -> Option<String> {
    let cookies =
        headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    let from_cookie =
        cookies.filter_map(|c| c.trim().strip_prefix(SESSION)).find(|u| !u.is_empty()).map(str::to_owned);
    from_cookie.or_else(|| headers.get("end-user")?.to_str().ok().map(str::to_owned))
}

async fn sign_in(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form =
        Limited::new(request.into_body(), 4096).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let form = String::from_utf8_lossy(&form).into_owned();
    let user = form
        .split('&')
        .chain(query.split('&'))
        .find_map(|pair| pair.strip_prefix("username=").map(str::to_owned));
    let plain = |u: &String| {
        !u.is_empty()
            && u.len() <= 64
            && u.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match user.filter(plain) {
        Some(user) => redirect(&format!("{SESSION}{user}; HttpOnly; SameSite=Lax; Path=/")),
        None => text(StatusCode::BAD_REQUEST, "username must be 1 to 64 letters, digits, `-`, `_` or `.`"),
    }
}

fn redirect(cookie: &str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::FOUND, "");
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn html(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = text(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
