//! From the runtime's command to the end of a program that does nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::rows::Row;
use crate::stats::{self, Samples};
use crate::target::{Image, Place, Target};

const TRUE: [&str; 2] = ["/bench/micro", "true"];
/// Commands of one round, of which the median counts.
const TIMES: usize = 7;
const LIMIT: Duration = Duration::from_secs(30);

/// Takes one sample of each row.
pub fn measure(
    place: &Place,
    target: &Target,
    rows: &[&'static Row],
    samples: &mut Samples,
) -> Result<()> {
    for row in rows {
        let mut times = Vec::new();
        if row.name == "exec-true" {
            if target.is_native() {
                continue;
            }
            let running = target.start(place, &["/bench/micro", "idle", "0"])?;
            for _ in 0..TIMES {
                let start = Instant::now();
                let done = running.exec(&TRUE)?;
                times.push(start.elapsed());
                anyhow::ensure!(done.ok(), "{}: {}", row.name, done.failure());
            }
        } else {
            for _ in 0..TIMES {
                let (done, took) = target.timed_run(place, Image::Bare, &TRUE, LIMIT)?;
                times.push(took);
                anyhow::ensure!(done.ok(), "{}: {}", row.name, done.failure());
            }
        }
        let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9).collect();
        if let Some(median) = stats::median(&times) {
            samples.add(&target.name, row.name, median);
        }
    }
    Ok(())
}
