//! What was measured, as Markdown.

use crate::cluster::{self, Start};
use crate::data_path::{Case, Kind, Plan, Row};
use crate::footprint::{Footprint, IDLE};
use crate::peers::Peer;
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

/// Who took part, and how.
pub fn peers(peers: &[Peer], absent: &[String], plan: &Plan) -> String {
    let mut text = format!(
        "Proxies on core 0, generator and backend (1 KiB) on core 1; {} interleaved rounds of {:.1} s, medians with min–max; \
         closed loop: 64 connections; open loop: 2,000/s over 16 connections, latency from the moment a request was due.\n",
        plan.rounds,
        plan.time.as_secs_f64()
    );
    for peer in peers {
        let _ = writeln!(text, "- {}: {}", peer.name, peer.version());
    }
    for absent in absent {
        let _ = writeln!(text, "- absent: {absent}");
    }
    text
}

/// The data path.
pub fn data_path(cases: &[Case]) -> String {
    cases.iter().map(table).collect()
}

/// Start and memory.
pub fn footprints(all: &[Footprint]) -> String {
    let mut text = String::from(
        "\n| 7, 7c, 8: one proxy | start to first answer, ms | RSS after it, MiB | anonymous | RSS 5 s later | anonymous | \
         KiB a resting connection | with mTLS | MiB for 1,000 clusters with routes |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let option = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
    for it in all {
        let mib = |kib: u64| mib(kib);
        let cells = [
            it.name.to_owned(),
            cell(&it.first_answer, 0),
            mib(it.first.rss),
            mib(it.first.anonymous),
            mib(it.settled.rss),
            mib(it.settled.anonymous),
            option(it.idle),
            option(it.idle_tls),
            option(it.clusters.map(|kib| kib / 1024.0)),
        ];
        line(&mut text, &cells.each_ref().map(String::as_str));
    }
    let _ = writeln!(
        text,
        "\nGoals: 25 ms, 8 MiB, 5 KiB, a tenth of Envoy's clusters. Resting: {IDLE} connections after one request each, anonymous memory."
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "KiB of a process fit")]
fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

fn table(case: &Case) -> String {
    let find = |name: &str| case.rows.iter().find(|row| row.name == name);
    let ours = find("ours");
    let bytes = case.kind == Kind::Bytes;
    let (rate, cost) = match case.kind {
        Kind::Bytes => ("MB/s", "CPU s/GB"),
        Kind::Handshakes(_) => ("handshakes/s", "CPU µs each"),
        _ => ("requests/s", "CPU µs each"),
    };
    let mut text = format!(
        "\n| {} | {rate} | {cost} | p50 µs | p99 µs | ours against it: {rate} · CPU · p50 | others' CPU % |\n|---|---|---|---|---|---|---|\n",
        case.title
    );
    for row in &case.rows {
        let ratio = ours.filter(|_| row.name != "ours" && row.name != "direct").map(|ours| ratios(ours, row));
        let cpu = match (row.name, bytes) {
            ("direct", _) => "–".into(),
            // Microseconds a byte are seconds a megabyte.
            (_, true) => scaled(&row.cpu, 1e3, 3),
            _ => cell(&row.cpu, 1),
        };
        let rate = if bytes { scaled(&row.per_second, 1e-6, 0) } else { cell(&row.per_second, 0) };
        let time = |it: &Summary| if it.max > 0.0 { cell(it, 0) } else { "–".into() };
        let cells = [
            row.name,
            &rate,
            &cpu,
            &time(&row.p50),
            &time(&row.p99),
            &ratio.unwrap_or_default(),
            &cell(&row.foreign, 1),
        ];
        line(&mut text, &cells);
    }
    let _ = writeln!(text, "\nGoal: {}.", case.goal);
    text
}

/// Ours against another.
fn ratios(ours: &Row, other: &Row) -> String {
    let of = |pick: fn(&Row) -> &Summary| {
        let (ours, other) = (pick(ours).median, pick(other).median);
        if other > 0.0 { format!("{:.2}", ours / other) } else { "–".to_owned() }
    };
    format!("{} · {} · {}", of(|it| &it.per_second), of(|it| &it.cpu), of(|it| &it.p50))
}

fn scaled(it: &Summary, by: f64, digits: usize) -> String {
    cell(&Summary { median: it.median * by, min: it.min * by, max: it.max * by }, digits)
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
