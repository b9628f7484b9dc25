//! `GET /details/<id>`: facts about the book.

use crate::client::id_in;
use base_runtime::http_server::{Handler, handler as make, json, text};
use http::StatusCode;
use serde_json::json;

pub fn handler() -> Handler {
    make(|request| async move {
        match request.uri().path() {
            "/health" => json(StatusCode::OK, r#"{"status":"Details is healthy"}"#),
            path => match id_in(path, "/details/") {
                Some(id) => json(StatusCode::OK, facts(id).to_string()),
                None => text(StatusCode::NOT_FOUND, "not found"),
            },
        }
    })
}

fn facts(id: u64) -> serde_json::Value {
    json!({
        "id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
        "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
    })
}
