//! The result: a table of ratios, and the same as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::options::Options;
use crate::rows::{Goal, Row, Unit};
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
    pub median: f64,
    /// Distance of the quartiles, as a share of the median.
    pub spread: f64,
    /// To the row's base.
    pub ratio: Option<f64>,
    pub samples: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub struct RowReport {
    pub name: &'static str,
    pub what: &'static str,
    /// `ns`, `bytes` or `%`.
    pub unit: &'static str,
    /// The target that ratios are to.
    pub base: &'static str,
    /// What it is to reach, as text.
    pub goal: String,
    /// The first target does not reach it.
    pub missed: bool,
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

    /// A target's part as the table shows it.
    fn shown(&self, target: &str) -> String {
        let Some(cell) = self.cell(target) else {
            return "-".to_owned();
        };
        let spread = cell.spread * 100.0;
        match cell.ratio {
            Some(ratio) => format!("{ratio:.2} ({spread:.0}%)"),
            None => value(self.unit, cell.median),
        }
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

    /// One line per row: native value, each target's ratio (with its spread in
    /// percent), what the row is to reach, and a bar of the first target.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "{:<20} {:>11}", "", "native");
        for target in self.others() {
            let _ = write!(out, " {target:>16}");
        }
        let scale = "-".repeat(BAR_ONE as usize - 3);
        let _ = writeln!(out, " {:>9}  |{scale}1.0", "at most");
        for row in &self.rows {
            let native = row.cell("native");
            let native = native.map_or("-".to_owned(), |cell| value(row.unit, cell.median));
            let _ = write!(out, "{:<20} {native:>11}", row.name);
            for target in self.others() {
                let _ = write!(out, " {:>16}", row.shown(target));
            }
            let _ = write!(out, " {:>9}  |{}", row.goal, self.bar(row));
            let _ = writeln!(out, "{}", if row.noisy { "  NOISY" } else { "" });
        }
        let _ = writeln!(
            out,
            "Ratios to native (start-up: to runc), medians of {} rounds (quartile distance in \
             percent); * misses what the row is to reach. Linux {}, {} CPUs.",
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
            return if row.missed { " *" } else { "" }.to_owned();
        };
        let len = (ratio * BAR_ONE).round() as usize;
        let more = if len > BAR_MAX { ">" } else { "" };
        let mark = if row.missed { " *" } else { "" };
        format!("{}{more}{mark}", "=".repeat(len.min(BAR_MAX)))
    }
}

fn row_report(row: &Row, targets: &[Target], samples: &Samples, noise: f64) -> RowReport {
    let base = stats::median(samples.get(row.base, row.name));
    let mut cells = Vec::new();
    for target in targets {
        let values = samples.get(&target.name, row.name);
        if let (Some(median), Some(spread)) = (stats::median(values), stats::spread(values)) {
            let comparable = row.unit == Unit::Nanoseconds;
            cells.push(Cell {
                target: target.name.clone(),
                median,
                spread,
                ratio: base.filter(|_| comparable).map(|base| median / base),
                samples: values.to_vec(),
            });
        }
    }
    let unit = match row.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::Percent => "%",
    };
    let first = targets.get(1);
    let first = first.and_then(|target| cells.iter().find(|cell| cell.target == target.name));
    let above = |limit: f64, value: Option<f64>| value.is_some_and(|value| value > limit);
    let (goal, missed) = match row.goal {
        Goal::None => (String::new(), false),
        Goal::Ratio(limit) => {
            let ratio = first.and_then(|cell| cell.ratio);
            (limit.to_string(), above(limit, ratio))
        }
        Goal::Value(limit) => (value(unit, limit), above(limit, first.map(|c| c.median))),
        Goal::Above(limit) => {
            let more = first.map(|cell| cell.median - base.unwrap_or(0.0));
            (format!("+{}", value(unit, limit)), above(limit, more))
        }
    };
    RowReport {
        name: row.name,
        what: row.what,
        unit,
        base: row.base,
        goal,
        missed,
        // Native and the first target are what the row is about.
        noisy: comparable_noise(row) && cells.iter().take(2).any(|cell| cell.spread > noise),
        cells,
    }
}

/// Whether the spread of a row says anything: of almost nothing it does not.
fn comparable_noise(row: &Row) -> bool {
    row.unit != Unit::Percent
}

fn value(unit: &str, value: f64) -> String {
    match unit {
        "%" => format!("{value:.2} %"),
        "bytes" if value < 1024.0 * 1024.0 => format!("{:.0} KiB", value / 1024.0),
        "bytes" => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        _ if value < 10_000.0 => format!("{value:.0} ns"),
        _ if value < 10_000_000.0 => format!("{:.1} us", value / 1e3),
        _ => format!("{:.1} ms", value / 1e6),
    }
}
