//! Container engines: scripts in `engines/`, each of which starts an engine
//! from its Debian package in private directories and prints a line for each
//! of its cases. The header says what a script needs:
//!
//! ```text
//! # packages: docker.io
//! # long                           (only with --long)
//! # timeout: 300                   (seconds, default 300)
//! ```

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::command;
use super::options::Options;
use super::pool::Job;
use super::tally::{Outcome, Tally, Verdict};

/// Time a script has unless it names another.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Script {
    name: String,
    path: PathBuf,
    long: bool,
    timeout: Duration,
}

fn list(options: &Options) -> Vec<Script> {
    let dir = options.source.join("engines");
    let mut scripts: Vec<Script> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            let stem = file.strip_suffix(".sh")?;
            let path = entry.path();
            let text = std::fs::read_to_string(&path).ok()?;
            let header = || {
                let lines = text.lines().take_while(|line| line.starts_with('#'));
                lines.map(|line| line.trim_start_matches('#').trim())
            };
            let timeout = header()
                .find_map(|line| line.strip_prefix("timeout:")?.trim().parse().ok())
                .map_or(TIMEOUT, Duration::from_secs);
            Some(Script {
                name: format!("engines/{stem}"),
                long: header().any(|line| line == "long"),
                timeout,
                path,
            })
        })
        .collect();
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    scripts
}

/// Results in what a script has printed: `ok CASE`, `skip CASE: REASON`, or
/// `FAIL CASE` and indented details.
fn results(output: &str) -> Vec<(String, Verdict, String)> {
    let mut found: Vec<(String, Verdict, String)> = Vec::new();
    for line in output.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ok" => found.push((rest.to_owned(), Verdict::Pass, String::new())),
            "skip" => {
                let (case, reason) = rest.split_once(": ").unwrap_or((rest, ""));
                found.push((case.to_owned(), Verdict::Skip, reason.to_owned()));
            }
            "FAIL" => found.push((rest.to_owned(), Verdict::Fail, String::new())),
            _ => {
                if let Some((_, _, detail)) = found.last_mut() {
                    detail.push_str(line.trim_start());
                    detail.push('\n');
                }
            }
        }
    }
    found
}

/// Whether a filter names cases of a script (`engines/docker/exec`).
fn wanted_cases(options: &Options, script: &str) -> String {
    let prefix = format!("{script}/");
    let cases = options.filters.iter().filter_map(|filter| {
        let case = filter.strip_prefix(&prefix)?;
        Some(format!("^{case}"))
    });
    cases.collect::<Vec<_>>().join("|")
}

/// Jobs for the scripts on one platform.
pub fn jobs<'a>(options: &'a Options, tally: &'a Tally, platform: &'a str) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for script in list(options) {
        let cases = wanted_cases(options, &script.name);
        let wanted = !cases.is_empty() || options.wants(&script.name);
        if !wanted || (script.long && !options.long) {
            continue;
        }
        jobs.push(Box::new(move || {
            let mut command = Command::new("bash");
            command
                .arg(&script.path)
                .env("RUNSC", &options.runsc)
                .env("RUNSC_ARGS", format!("--platform={platform}"))
                .env("LONG", u8::from(options.long).to_string())
                .env("STATIC_DIR", &options.static_dir)
                .env("WANTED", cases);
            let done = command::run(&mut command, script.timeout);
            let mut found = results(&done.stdout);
            if !done.ok() || found.is_empty() {
                let whole = ("whole".to_owned(), Verdict::Fail, done.describe());
                found.push(whole);
            }
            for (case, verdict, detail) in found {
                let outcome = Outcome {
                    name: format!("{}/{case}", script.name),
                    platform: platform.to_owned(),
                    verdict,
                    detail,
                };
                tally.add("engines", outcome);
            }
        }));
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_scripts() {
        let found = results("ok one\nFAIL two\n     why\n     how\nskip three: no such program\n");
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        let details: Vec<&str> = found.iter().map(|(.., detail)| detail.as_str()).collect();
        assert_eq!(details, ["", "why\nhow\n", "no such program"]);
    }
}
