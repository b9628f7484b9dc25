//! Prints every custom resource definition as one JSON list.

fn main() {
    println!("{}", serde_json::Value::Array(policies_api::crd::all()));
}
