//! The page as HTML. All text from other services is escaped.

use serde_json::Value;

/// What one of the two called services gave.
pub type Part = Result<Value, String>;

/// The whole page.
pub fn render(user: Option<&str>, details: &Part, reviews: &Part) -> String {
    let sign = user.map_or_else(
        || r#"<a href="/login?username=jason">sign in as jason</a>"#.to_owned(),
        |u| format!("{} (<a href=\"/logout\">sign out</a>)", escape(u)),
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Simple Bookstore App</title>\
         <style>body{{font:16px sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}}dt{{font-weight:bold}}.red{{color:#c00}}.error{{color:#a00}}</style></head>\
         <body><p>{sign}</p><h1>The Comedy of Errors</h1><h2>Book Details</h2>{}<h2>Book Reviews</h2>{}</body></html>\n",
        details_html(details),
        reviews_html(reviews)
    )
}

fn details_html(details: &Part) -> String {
    match details {
        Ok(Value::Object(facts)) => {
            let rows: String = facts
                .iter()
                .map(|(k, v)| format!("<dt>{}</dt><dd>{}</dd>", escape(k), escape(&plain(v))))
                .collect();
            format!("<dl>{rows}</dl>")
        }
        Ok(_) | Err(_) => "<p class=\"error\">Error fetching product details!</p>".into(),
    }
}

fn reviews_html(reviews: &Part) -> String {
    let Ok(answer) = reviews else { return "<p class=\"error\">Error fetching product reviews!</p>".into() };
    let one = |review: &Value| {
        let rating = &review["rating"];
        let stars = if let Some(count) = rating["stars"].as_u64() {
            let color = if rating["color"] == "red" { "red" } else { "black" };
            format!("<p class=\"{color}\">{}</p>", "★".repeat(usize::try_from(count.min(5)).unwrap_or(5)))
        } else if let Some(error) = rating["error"].as_str() {
            format!("<p class=\"error\">{}</p>", escape(error))
        } else {
            String::new()
        };
        format!(
            "<blockquote><p>{}</p><footer>{}</footer>{stars}</blockquote>",
            escape(&plain(&review["text"])),
            escape(&plain(&review["reviewer"]))
        )
    };
    let served = format!("<p>Served by {}</p>", escape(&plain(&answer["podname"])));
    answer["reviews"].as_array().map(|all| all.iter().map(one).collect::<String>()).unwrap_or_default()
        + &served
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_came_and_escapes_it() {
        let reviews = Ok(
            json!({"podname": "p", "reviews": [{"reviewer": "<b>", "text": "t", "rating": {"stars": 4, "color": "red"}}]}),
        );
        let html = render(None, &Err("down".into()), &reviews);
        assert!(html.contains("Error fetching product details!"));
        assert!(html.contains("&lt;b&gt;") && html.contains("<p class=\"red\">★★★★</p>"));
    }
}
