//! Measures workloads natively, under this `runsc` on its platforms, and under
//! other OCI runtimes, interleaved in one run.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the command line |
//! | [`rows`] | what is measured, and which ratio each row is to reach |
//! | [`target`] | where it is measured: natively or in a container |
//! | [`micro`] | single calls, by the guest program `guest/micro.c` |
//! | [`stats`] | medians and spreads |
//! | [`report`], [`chart`] | table and JSON; SVG |
#![forbid(unsafe_code)]

mod chart;
mod micro;
mod options;
mod report;
mod rows;
mod stats;
mod target;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use options::Options;
use stats::Samples;
use target::Place;

/// Exit code when the machine was too noisy for some row.
const NOISY: u8 = 3;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("bench: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let rows = options.rows();
    if options.list {
        for row in &rows {
            println!("{:<22} {}", row.name, row.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(!rows.is_empty(), "no row is called like that; see --list");
    let place = Place::new()?;
    let targets = options.working_targets(&place)?;
    let mut samples = Samples::default();
    for round in 1..=options.rounds {
        for target in &targets {
            eprintln!("round {round} of {}: {}", options.rounds, target.name);
            micro::measure(options, &place, target, &rows, &mut samples)
                .with_context(|| format!("{} did not run", target.name))?;
        }
    }
    let report = report::Report::new(options, &targets, &rows, &samples);
    print!("{}", report.table());
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("can't write {}", file.display()))?;
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, chart::svg(&report))
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(if report.rows.iter().any(|row| row.noisy) {
        ExitCode::from(NOISY)
    } else {
        ExitCode::SUCCESS
    })
}
