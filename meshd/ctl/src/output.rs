//! Results on standard output: a table for people, JSON and YAML for programs.

use crate::failure::Outcome;
use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde_json::Value;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name` alone.
    Name,
}

/// Writes a value as JSON or YAML; `false` when the form is one for people.
pub fn structured(format: Format, value: &Value) -> Outcome<bool> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(value).map_err(|e| anyhow::anyhow!("{e}"))?),
        Format::Table | Format::Wide | Format::Name => return Ok(false),
    }
    Ok(true)
}

/// Writes columns as kubectl does: upper-case heads, three spaces between.
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heads.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}
