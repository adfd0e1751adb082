//! Real programs: `guest/programs.sh` in a container with the host's programs.

use std::time::Duration;

use anyhow::Result;

use crate::rows::Row;
use crate::stats::Samples;
use crate::target::{Image, Place, Target};

const SCRIPT: &str = "/bench/programs.sh";
/// Longest run of one row.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the inputs of the rows; answers those that can be measured here.
pub fn prepare(
    place: &Place,
    native: &Target,
    rows: Vec<&'static Row>,
) -> Result<Vec<&'static Row>> {
    let mut able = Vec::new();
    for row in rows {
        let args = ["bash", SCRIPT, "prepare", row.name];
        let done = native.run(place, Image::Host, &args, LIMIT)?;
        if done.ok() {
            able.push(row);
        } else {
            eprintln!("{} can't be measured here: {}", row.name, done.failure());
        }
    }
    Ok(able)
}

/// Takes one sample of each row, each in a container of its own.
pub fn measure(
    place: &Place,
    target: &Target,
    rows: &[&'static Row],
    samples: &mut Samples,
) -> Result<()> {
    for row in rows {
        let args = ["bash", SCRIPT, "run", row.name];
        let done = target.run(place, Image::Host, &args, LIMIT)?;
        let value = done
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(row.name)?.trim().parse().ok());
        match value {
            Some(value) if done.ok() => {
                eprintln!("  {}: {:.1} ms", row.name, value / 1e6);
                samples.add(&target.name, row.name, value);
            }
            _ => eprintln!("  {}: {}: {}", target.name, row.name, done.failure()),
        }
    }
    Ok(())
}
