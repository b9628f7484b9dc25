//! What was measured, as Markdown.

use crate::cluster::{self, Start};
use crate::proxies::{self, Case, Row};
use crate::summary::{Summary, percentile, summary};
use crate::system::{self, Memory};
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Flags of the processor that matter to cryptography and copying.
const FLAGS: [&str; 7] = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni", "erms"];

/// Machine and versions.
pub fn surroundings(envoy: Option<&Path>) -> Result<String> {
    let has = system::processor("flags");
    let flags: Vec<&str> = FLAGS.into_iter().filter(|flag| has.split(' ').any(|it| it == *flag)).collect();
    let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output()?;
    let peer = envoy.map_or("absent".into(), |path| path.display().to_string());
    Ok(format!(
        "Measured {} on {} cores of {} (flags {}), Linux {}; perf {}; Envoy: {peer}.\n\n",
        String::from_utf8_lossy(&date.stdout).trim(),
        system::cores(),
        system::processor("model name"),
        flags.join(" "),
        system::kernel(),
        env!("CARGO_PKG_VERSION"),
    ))
}

/// Start, memory, changes.
pub fn cluster(report: &cluster::Report) -> String {
    let mut text =
        String::from("| start of `meshctl up --demo` to | median s | min–max | goal |\n|---|---|---|---|\n");
    let mut row = |name: &str, goal: &str, pick: fn(&Start) -> Option<f64>| {
        let seen = summary(report.starts.iter().filter_map(pick));
        line(&mut text, &[name, &format!("{:.2}", seen.median), &range(&seen, 2), goal]);
    };
    row("API answers", "", |it| it.api);
    row("both nodes ready", "", |it| it.nodes);
    row("first pod running", "", |it| it.pod);
    row("application answers 200 through the gateway", "5", |it| it.answering);
    row("the command ends", "", |it| Some(it.command));
    if let Some(start) = report.starts.last() {
        text += &format!(
            "\nThe command's last line of live figures, run {}: {}\n",
            report.starts.len(),
            start.live
        );
    }
    text +=
        "\n| memory when idle, MiB | processes | RSS | anonymous | PSS | goal |\n|---|---|---|---|---|---|\n";
    for (name, goal) in [("cluster", "80"), ("meshd", "40"), ("sidecar", "8"), ("shim", ""), ("bookinfo", "")]
    {
        let all: Vec<Memory> =
            report.memory.iter().filter(|(it, _)| it == name).map(|(_, memory)| *memory).collect();
        let cells = memory_cells(&all);
        line(&mut text, &[name, &all.len().to_string(), &cells[0], &cells[1], &cells[2], goal]);
    }
    text += "\n| change of weights to last acknowledgement, ms | p50 | p99 | max | goal p99 |\n|---|---|---|---|---|\n";
    for (name, times, goal) in
        [("as `meshctl apply` says", &report.changes, "20"), ("the whole command", &report.commands, "")]
    {
        let name = format!("{name} ({} changes, {} proxies affected)", times.len(), report.affected);
        let cell = |percent| format!("{:.1}", percentile(times, percent));
        line(&mut text, &[&name, &cell(50), &cell(99), &cell(100), goal]);
    }
    text.push('\n');
    text
}

/// The data path.
pub fn proxies(report: &proxies::Report) -> String {
    let mut text = format!(
        "Proxies on core 0, generator and backend (1 KiB) on core 1; {} interleaved rounds of {} s, medians with min–max; \
         closed loop: 64 connections; open loop: 2,000/s over 16 connections, latency from the moment a request was due.\n",
        report.rounds, report.seconds
    );
    for contender in &report.contenders {
        let _ = writeln!(text, "- {}: {}", contender.name, contender.version);
    }
    for absent in &report.absent {
        let _ = writeln!(text, "- absent: {absent}");
    }
    for case in &report.cases {
        text += &table(case);
    }
    text += "\n| two proxies | start to first answer, ms | RSS after it, MiB each | anonymous | RSS after all rounds | anonymous |\n|---|---|---|---|---|---|\n";
    for it in &report.contenders {
        let (before, after) = (memory_cells(&it.memory), memory_cells(&it.memory_after));
        let first = it.first_answer.as_millis().to_string();
        line(&mut text, &[it.name, &first, &before[0], &before[1], &after[0], &after[1]]);
    }
    text
}

fn table(case: &Case) -> String {
    let find = |name: &str| case.rows.iter().find(|row| row.name == name);
    let (envoy, direct) = (find("Envoy"), find("direct"));
    let mut text = format!(
        "\n| {} | requests/s | CPU µs/request | p50 µs | p99 µs | p99 added to direct | against Envoy | others' CPU % |\n|---|---|---|---|---|---|---|---|\n",
        case.name
    );
    for row in &case.rows {
        let added = direct
            .filter(|_| row.name != "direct")
            .map_or_else(|| "–".to_owned(), |direct| format!("{:.0}", row.p99.median - direct.p99.median));
        let ratio = match envoy {
            Some(envoy) if row.name == "ours" => ratios(case.open, row, envoy, direct),
            _ => String::new(),
        };
        let cpu = if row.name == "direct" { "–".into() } else { cell(&row.cpu, 1) };
        let cells = [
            row.name,
            &cell(&row.per_second, 0),
            &cpu,
            &cell(&row.p50, 0),
            &cell(&row.p99, 0),
            &added,
            &ratio,
        ];
        line(&mut text, &[&cells[..], &[&cell(&row.foreign, 1)]].concat());
    }
    text
}

fn ratios(open: bool, ours: &Row, envoy: &Row, direct: Option<&Row>) -> String {
    let cpu = ours.cpu.median / envoy.cpu.median;
    if !open {
        return format!(
            "{:.2} × requests/s, {cpu:.2} × CPU",
            ours.per_second.median / envoy.per_second.median
        );
    }
    let floor = direct.map_or(0.0, |direct| direct.p99.median);
    let added = (ours.p99.median - floor) / (envoy.p99.median - floor);
    format!("{cpu:.2} × CPU, {:.2} × p50, {added:.2} × added p99", ours.p50.median / envoy.p50.median)
}

fn cell(summary: &Summary, digits: usize) -> String {
    format!("{:.digits$} ({})", summary.median, range(summary, digits))
}

fn range(summary: &Summary, digits: usize) -> String {
    format!("{:.digits$}–{:.digits$}", summary.min, summary.max)
}

/// RSS, anonymous part and PSS in MiB: median and range.
fn memory_cells(all: &[Memory]) -> [String; 3] {
    let picks: [fn(&Memory) -> u64; 3] = [|it| it.rss, |it| it.anonymous, |it| it.pss];
    picks.map(|pick| {
        #[expect(clippy::cast_precision_loss, reason = "KiB of a process fit")]
        let seen = summary(all.iter().map(|memory| pick(memory) as f64 / 1024.0));
        if all.len() > 1 { cell(&seen, 1) } else { format!("{:.1}", seen.median) }
    })
}

fn line(text: &mut String, cells: &[&str]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}
