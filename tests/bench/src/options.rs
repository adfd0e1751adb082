//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::rows::{Group, ROWS, Row};
use crate::target::{Image, Place, Target};

/// Compares workloads natively, under runsc and under other OCI runtimes.
///
/// Every round runs every target once, so that a change of the machine's pace
/// meets all of them. Ratios are medians over the rounds, to native; below 1
/// is faster than the host. Exit code 3: some rows are worth nothing, because
/// their samples lie too far apart.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// Rounds to run
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Only rows of these groups
    #[arg(long = "group", value_enum, value_delimiter = ',')]
    pub groups: Vec<Group>,
    /// Only rows whose name contains one of these
    #[arg(long = "row", value_name = "TEXT")]
    pub only: Vec<String>,
    /// Run everything on these CPUs, as `0,1`
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// The runsc to measure, the one beside this program by default
    #[arg(long, value_name = "FILE")]
    pub runsc: Option<PathBuf>,
    /// Another build of runsc to set beside it (both on each platform)
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Platforms of runsc
    #[arg(long, value_delimiter = ',', default_value = "systrap,ptrace")]
    pub platform: Vec<String>,
    /// A further runtime: `runc`, `crun`, or a name and a command with its
    /// global flags (`gvisor=/opt/runsc --network=none --ignore-cgroups`)
    #[arg(long = "runtime", value_name = "NAME[=COMMAND]")]
    pub runtimes: Vec<String>,
    /// Leave runc and crun out even if they are installed
    #[arg(long)]
    pub no_default_runtimes: bool,
    /// Milliseconds of one batch of calls
    #[arg(long, default_value_t = 10)]
    pub batch_ms: u32,
    /// Batches of a row in one round, of which the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub batches: u32,
    /// A row is noisy if half of its samples lie further apart than this
    /// share of the median
    #[arg(long, default_value_t = 0.25)]
    pub noise: f64,
    /// Write all samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw a chart into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Name the rows and end
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// The rows asked for.
    pub fn rows(&self) -> Vec<&'static Row> {
        let wanted =
            |row: &&Row| self.only.is_empty() || self.only.iter().any(|o| row.name.contains(o));
        let in_group = |row: &&Row| self.groups.is_empty() || self.groups.contains(&row.group);
        ROWS.iter().filter(wanted).filter(in_group).collect()
    }

    fn runsc(&self) -> Result<PathBuf> {
        let path = match &self.runsc {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("runsc"),
        };
        std::fs::canonicalize(&path).with_context(|| {
            format!(
                "no {}: build it with `cargo build --release --bin runsc`",
                path.display()
            )
        })
    }

    /// Native first, which all others are compared with; without those that
    /// can't run a program here at all.
    pub fn working_targets(&self, place: &Place) -> Result<Vec<Target>> {
        let mut working = Vec::new();
        for target in self.targets()? {
            let done = target.run(
                place,
                Image::Bare,
                &["/bench/micro", "true"],
                Duration::from_secs(30),
            )?;
            if done.ok() {
                working.push(target);
            } else if target.name == "native" {
                anyhow::bail!("programs don't run natively: {}", done.failure());
            } else {
                eprintln!("{} does not run here: {}", target.name, done.failure());
            }
        }
        Ok(working)
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = vec![Target::native()];
        let runsc = self.runsc()?;
        for platform in &self.platform {
            targets.push(Target::runsc(platform, &runsc, platform));
            if let Some(other) = &self.against {
                targets.push(Target::runsc(
                    &format!("{platform}-against"),
                    other,
                    platform,
                ));
            }
        }
        for given in &self.runtimes {
            let (name, command) = given.split_once('=').unwrap_or((given, given));
            targets.push(Target::oci(name, command.split_whitespace()));
        }
        for name in ["runc", "crun"] {
            let taken = targets.iter().any(|target| target.name == name);
            if !self.no_default_runtimes && !taken && in_path(name) {
                targets.push(Target::oci(name, [name]));
            }
        }
        Ok(targets)
    }
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
