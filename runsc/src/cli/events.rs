//! `events`: statistics and out-of-memory kills, one JSON object per line, as
//! `runc events` prints them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::Global;
use crate::cgroup::Cgroup;
use crate::state::Status;

/// How often the counter of out-of-memory kills is looked at.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct Events {
    /// Print statistics once and end.
    #[arg(long)]
    stats: bool,
    /// Time between statistics, for example 5s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    interval: Duration,
    id: String,
}

/// A time with a unit of `ms`, `s` or `m`.
fn interval(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "not a number of s, ms or m")?;
    let interval = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("units are ms, s and m".to_owned()),
    };
    if interval.is_zero() {
        return Err("the interval must be above zero".to_owned());
    }
    Ok(interval)
}

impl Events {
    pub fn run(self, global: &Global) -> Result<u8> {
        let store = global.store();
        let record = store.peek(&self.id)?;
        anyhow::ensure!(
            record.status != Status::Stopped,
            "container with id {} is not running",
            self.id
        );
        let cgroup = record
            .cgroup
            .context("the container has no cgroup, which statistics come from")?;
        if self.stats {
            self.print("stats", &cgroup.stats().0)?;
            return Ok(0);
        }
        self.follow(global, &cgroup)
    }

    /// Prints until the container has ended.
    fn follow(&self, global: &Global, cgroup: &Cgroup) -> Result<u8> {
        let mut next = Instant::now();
        let mut kills = cgroup.oom_kills();
        loop {
            let running = global.store().peek(&self.id);
            if running.is_err() || running.is_ok_and(|record| record.status == Status::Stopped) {
                return Ok(0);
            }
            let now = cgroup.oom_kills();
            if now > kills {
                kills = now;
                self.print("oom", &Value::Null)?;
            }
            if Instant::now() >= next {
                self.print("stats", &cgroup.stats().0)?;
                next += self.interval;
            }
            std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        }
    }

    fn print(&self, kind: &str, data: &Value) -> Result<()> {
        let event = match data {
            Value::Null => json!({"type": kind, "id": self.id}),
            data => json!({"type": kind, "id": self.id, "data": data}),
        };
        // A reader that has gone away ends the command.
        use std::io::Write;
        writeln!(std::io::stdout(), "{event}").context("events can't be written")
    }
}
