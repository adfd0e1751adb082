//! The result: a table of ratios to native, and the same as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::options::Options;
use crate::rows::Row;
use crate::stats::{self, Samples};
use crate::target::Target;

/// Characters of a bar that stand for a ratio of 1.
const BAR_ONE: f64 = 10.0;
/// Longest bar.
const BAR_MAX: usize = 40;

/// One target's part of a row.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub target: String,
    pub median_ns: f64,
    /// Distance of the quartiles, as a share of the median.
    pub spread: f64,
    /// To native.
    pub ratio: Option<f64>,
    pub samples_ns: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub struct RowReport {
    pub name: &'static str,
    pub what: &'static str,
    pub at_most: Option<f64>,
    /// Some target's samples lie too far apart to be worth anything.
    pub noisy: bool,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub host_kernel: String,
    pub cpus: usize,
    pub rounds: u32,
    pub targets: Vec<String>,
    pub rows: Vec<RowReport>,
}

impl RowReport {
    pub fn cell(&self, target: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.target == target)
    }
}

impl Report {
    pub fn new(options: &Options, targets: &[Target], rows: &[&Row], samples: &Samples) -> Self {
        let rows = rows
            .iter()
            .map(|row| row_report(row, targets, samples, options.noise))
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            host_kernel: kernel.trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            rounds: options.rounds,
            targets: targets.iter().map(|target| target.name.clone()).collect(),
            rows,
        }
    }

    /// One line per row: native time, each target's ratio (with its spread in
    /// percent), what the row is to reach, and a bar of the first target.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "{:<20} {:>11}", "", "native");
        for target in self.others() {
            let _ = write!(out, " {target:>16}");
        }
        let scale = "-".repeat(BAR_ONE as usize - 3);
        let _ = writeln!(out, " {:>7}  |{scale}1.0", "at most");
        for row in &self.rows {
            let native = row.cell("native");
            let _ = write!(out, "{:<20} {:>11}", row.name, time(native));
            for target in self.others() {
                let _ = write!(out, " {:>16}", ratio(row.cell(target)));
            }
            let limit = row.at_most.map_or(String::new(), |limit| limit.to_string());
            let _ = write!(out, " {limit:>7}  |{}", self.bar(row));
            let _ = writeln!(out, "{}", if row.noisy { "  NOISY" } else { "" });
        }
        let _ = writeln!(
            out,
            "Ratios to native, medians of {} rounds (quartile distance in percent); * above what \
             the row is to reach. Linux {}, {} CPUs.",
            self.rounds, self.host_kernel, self.cpus
        );
        out
    }

    pub fn others(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().skip(1)
    }

    fn bar(&self, row: &RowReport) -> String {
        let first = self.targets.get(1).and_then(|target| row.cell(target));
        let Some(ratio) = first.and_then(|cell| cell.ratio) else {
            return String::new();
        };
        let len = (ratio * BAR_ONE).round() as usize;
        let mark = match row.at_most {
            Some(limit) if ratio > limit => " *",
            _ => "",
        };
        let more = if len > BAR_MAX { ">" } else { "" };
        format!("{}{more}{mark}", "=".repeat(len.min(BAR_MAX)))
    }
}

fn row_report(row: &Row, targets: &[Target], samples: &Samples, noise: f64) -> RowReport {
    let native = stats::median(samples.get("native", row.name));
    let mut cells = Vec::new();
    for target in targets {
        let values = samples.get(&target.name, row.name);
        if let (Some(median_ns), Some(spread)) = (stats::median(values), stats::spread(values)) {
            cells.push(Cell {
                target: target.name.clone(),
                median_ns,
                spread,
                ratio: native.map(|native| median_ns / native),
                samples_ns: values.to_vec(),
            });
        }
    }
    RowReport {
        name: row.name,
        what: row.what,
        at_most: row.at_most,
        // Native and the first target are what the row is about.
        noisy: cells.iter().take(2).any(|cell| cell.spread > noise),
        cells,
    }
}

fn time(cell: Option<&Cell>) -> String {
    match cell.map(|cell| cell.median_ns) {
        None => "-".to_owned(),
        Some(ns) if ns < 10_000.0 => format!("{ns:.0} ns"),
        Some(ns) if ns < 10_000_000.0 => format!("{:.1} us", ns / 1e3),
        Some(ns) => format!("{:.1} ms", ns / 1e6),
    }
}

fn ratio(cell: Option<&Cell>) -> String {
    match cell {
        None => "failed".to_owned(),
        Some(cell) => match cell.ratio {
            None => time(Some(cell)),
            Some(ratio) => format!("{ratio:.2} ({:.0}%)", cell.spread * 100.0),
        },
    }
}
