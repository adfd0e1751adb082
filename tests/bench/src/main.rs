//! Measures workloads natively, under this `runsc` on its platforms, and under
//! other OCI runtimes, interleaved in one run.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the command line |
//! | [`rows`] | what is measured, and which ratio each row is to reach |
//! | [`target`] | where it is measured: natively or in a container |
//! | [`micro`] | single calls, alone and several at once, by the guest program `guest/micro.c` |
//! | [`programs`] | real programs, by `guest/programs.sh` |
//! | [`startup`], [`density`] | starting containers; what idle ones take |
//! | [`stats`] | medians and spreads |
//! | [`report`], [`chart`] | table and JSON; SVG |
#![forbid(unsafe_code)]

mod chart;
mod density;
mod micro;
mod options;
mod programs;
mod report;
mod rows;
mod startup;
mod stats;
mod target;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use options::Options;
use rows::{Group, Row};
use stats::Samples;
use target::{Place, Target};

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
    let mut rows = options.rows();
    if options.list {
        for row in &rows {
            println!(
                "{:<22} {:<9} {}",
                row.name,
                format!("{:?}", row.group),
                row.what
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(!rows.is_empty(), "no row is called like that; see --list");
    if let Some(list) = &options.cpus {
        pin(list).with_context(|| format!("can't run on CPUs {list:?}"))?;
    }
    let place = Place::new()?;
    let targets = options.working_targets(&place)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    if let Some(native) = targets.iter().find(|target| target.is_native()) {
        let of_programs = |row: &&Row| row.group == Group::Macro;
        let (programs, others) = rows.into_iter().partition(of_programs);
        rows = others;
        rows.extend(programs::prepare(&place, native, programs)?);
        // In the order of the table again.
        let all = options.rows();
        rows.sort_by_key(|row| all.iter().position(|other| other.name == row.name));
    }
    let mut samples = Samples::default();
    for round in 1..=options.rounds {
        for target in &targets {
            eprintln!("round {round} of {}: {}", options.rounds, target.name);
            if let Err(err) = measure(options, &place, target, &rows, &mut samples) {
                eprintln!("  {}: {err:#}", target.name);
            }
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

/// One round of one target.
fn measure(
    options: &Options,
    place: &Place,
    target: &Target,
    rows: &[&'static Row],
    samples: &mut Samples,
) -> Result<()> {
    let of = |groups: &[Group]| -> Vec<&'static Row> {
        let rows = rows.iter().copied();
        rows.filter(|row| groups.contains(&row.group)).collect()
    };
    micro::measure(
        options,
        place,
        target,
        &of(&[Group::Micro, Group::Scaling]),
        samples,
    )?;
    programs::measure(place, target, &of(&[Group::Macro]), samples)?;
    startup::measure(place, target, &of(&[Group::StartUp]), samples)?;
    let density = of(&[Group::Density]);
    if !density.is_empty() {
        density::measure(place, target, &density, samples)?;
    }
    Ok(())
}

/// Keeps this program, and what it starts, on the CPUs of a list (`0,2`).
fn pin(list: &str) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in list.split(',') {
        set.set(cpu.trim().parse()?)?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
    Ok(())
}
