//! Documents of files, each knowing the line of its fields.

use crate::failure::{Exit, Failure, Outcome};
use policies_api::document::{Document, parse};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// A document with the file it came from.
#[derive(Debug)]
pub struct Source {
    /// Name of the file, `-` for standard input.
    pub file: String,
    /// The document.
    pub document: Document,
}

/// Reads files, directories (their `.yaml`, `.yml` and `.json` files by name) and `-`; items of lists become documents.
pub fn read_all(paths: &[PathBuf]) -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        for file in expand(path)? {
            let name = file.display().to_string();
            let text = read(&file)?;
            let documents = parse(&text).map_err(|error| invalid(&name, &error.to_string()))?;
            for document in documents {
                sources.extend(items(&name, document));
            }
        }
    }
    for source in &sources {
        source.check_head()?;
    }
    if sources.is_empty() {
        return Err(Failure::new(Exit::BadInput, "no objects were found in the files"));
    }
    Ok(sources)
}

fn expand(path: &Path) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Outcome<String> {
    let failed = |error: std::io::Error| Failure::new(Exit::BadInput, format!("{}: {error}", file.display()));
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read_to_string(file).map_err(failed)?;
    }
    Ok(text)
}

fn items(file: &str, document: Document) -> Vec<Source> {
    let is_list = document.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
        && document.value["items"].is_array();
    if !is_list {
        return vec![Source { file: file.into(), document }];
    }
    let all = document.value["items"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .map(|value| Source {
            file: file.into(),
            document: Document { value, positions: document.positions.clone() },
        })
        .collect()
}

fn invalid(file: &str, message: &str) -> Failure {
    Failure::new(Exit::BadInput, format!("{file}: {message}")).fix("correct the file; nothing was changed")
}

impl Source {
    /// What every object must have.
    fn check_head(&self) -> Outcome {
        for (path, value) in [
            ("apiVersion", &self.document.value["apiVersion"]),
            ("kind", &self.document.value["kind"]),
            ("metadata.name", &self.document.value["metadata"]["name"]),
        ] {
            if value.as_str().is_none_or(str::is_empty) {
                return Err(self.at(path, &format!("{path}: must be a text that is not empty")));
            }
        }
        Ok(())
    }

    /// A failure of the server, with the file and, when the message names a field, its line.
    pub fn failure(&self, failure: Failure) -> Failure {
        if failure.exit == Exit::Unreachable {
            return failure;
        }
        let path = field_in(&failure.message).unwrap_or_default();
        let fix = failure.fix.clone();
        let located = self.at(&path, &failure.message);
        Failure { fix: fix.or(located.fix.clone()), ..located }
    }

    /// A message behind the file and line of a field.
    pub fn place(&self, path: &str, message: &str) -> String {
        let place = self
            .document
            .positions
            .locate(path)
            .filter(|p| p.line > 0)
            .map(|p| format!(":{}:{}", p.line, p.column))
            .unwrap_or_default();
        let field =
            if path.is_empty() || message.contains(path) { String::new() } else { format!("{path}: ") };
        format!("{}{place}: {field}{message}", self.file)
    }

    fn at(&self, path: &str, message: &str) -> Failure {
        Failure::new(Exit::BadInput, self.place(path, message)).fix("correct the file; nothing was changed")
    }
}

/// The first field path in a message: `spec.http[0].route[1].weight` and the like.
fn field_in(message: &str) -> Option<String> {
    let field = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '[' | ']' | '_');
    let start =
        message.match_indices("spec.").chain(message.match_indices("metadata.")).map(|(at, _)| at).min()?;
    let path: String = message[start..].chars().take_while(|c| field(*c)).collect();
    Some(path.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_in_a_message_is_found() {
        let message = "VirtualService \"x\" is invalid: spec.http[0].route[1].weight: Invalid value: -1";
        assert_eq!(field_in(message).as_deref(), Some("spec.http[0].route[1].weight"));
        assert_eq!(field_in("no field here"), None);
    }

    #[test]
    fn a_failure_names_file_and_line() {
        let documents =
            parse("apiVersion: v1\nkind: A\nmetadata:\n  name: a\nspec:\n  b:\n  - c: 1\n  - c: 2\n")
                .unwrap();
        let source = Source { file: "a.yaml".into(), document: documents.into_iter().next().unwrap() };
        let failure = source.failure(Failure::new(Exit::BadInput, "spec.b[1].c: must be less"));
        assert!(failure.message.starts_with("a.yaml:8:"), "{}", failure.message);
    }
}
