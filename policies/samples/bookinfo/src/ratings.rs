//! `GET /ratings/<id>`: stars by reviewer.

use crate::client::id_in;
use base_runtime::http_server::{Handler, handler as make, json, text};
use http::StatusCode;

pub fn handler() -> Handler {
    make(|request| async move {
        match request.uri().path() {
            "/health" => json(StatusCode::OK, r#"{"status":"Ratings is healthy"}"#),
            path => match id_in(path, "/ratings/") {
                Some(id) => json(
                    StatusCode::OK,
                    format!(r#"{{"id":{id},"ratings":{{"Reviewer1":5,"Reviewer2":4}}}}"#),
                ),
                None => text(StatusCode::NOT_FOUND, "not found"),
            },
        }
    })
}
