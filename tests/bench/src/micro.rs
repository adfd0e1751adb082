//! Single calls: runs `guest/micro.c` in a target.

use std::time::Duration;

use anyhow::Result;

use crate::options::Options;
use crate::rows::Row;
use crate::stats::Samples;
use crate::target::{Image, Place, Target};

/// What one program run may take beyond its batches.
const SLACK: Duration = Duration::from_secs(60);

/// Takes one sample of each row. A row that fails is said and left out; the
/// rows behind it run in a program of their own.
pub fn measure(
    options: &Options,
    place: &Place,
    target: &Target,
    rows: &[&'static Row],
    samples: &mut Samples,
) -> Result<()> {
    let (ms, batches) = (options.batch_ms.to_string(), options.batches.to_string());
    let mut left = rows;
    while !left.is_empty() {
        let mut args = vec!["/bench/micro", "run", &ms, &batches];
        args.extend(left.iter().map(|row| row.name));
        // Calibration takes about another batch; long rows take what they take.
        let batches = left.len() as u32 * (options.batches + 3);
        let limit = SLACK + Duration::from_millis(u64::from(options.batch_ms * 4 * batches));
        let done = target.run(place, Image::Bare, &args, limit)?;
        let mut count = 0;
        for line in done.stdout.lines() {
            if let Some((name, value)) = line.split_once(' ')
                && let Ok(value) = value.parse()
            {
                samples.add(&target.name, name, value);
                count += 1;
            }
        }
        if done.ok() {
            break;
        }
        let failed = left.get(count).map_or("end", |row| row.name);
        eprintln!("  {}: {failed}: {}", target.name, done.failure());
        left = left.get(count + 1..).unwrap_or_default();
    }
    Ok(())
}
