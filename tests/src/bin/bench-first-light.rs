//! The figures expected of the first release, natively and on each platform:
//! start of /bin/true, memory and CPU of an idle sandbox, cost of small calls.
//!
//! `bench-first-light [--runsc FILE] [--static-dir DIR] [--platform NAME]…`

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tests::runner::bundle::{Ctx, tree};
use tests::runner::command;
use tests::runner::options::Options;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-first-light: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = Options::parse(std::env::args().skip(1))?;
    let native = calls(Command::new(&options.guest).arg("bench"))?;
    println!("native: {}", line(&native));
    for platform in &options.platforms {
        println!("{platform}:");
        let ctx = Ctx::new(&options, platform, "bench")?;
        match start_time(&ctx) {
            Ok(ms) => println!("  run of /bin/true on a bundle  {ms:.1} ms (expected below 40)"),
            Err(e) => println!("  run of /bin/true on a bundle  {e}"),
        }
        match idle(&ctx) {
            Ok((pss, cpu, n)) => {
                println!(
                    "  idle sandbox, {n} processes     {:.1} MiB PSS (expected below 12)",
                    pss as f64 / 1024.0
                );
                println!("  idle sandbox over 10 s        {cpu:.2} % CPU (expected 0.0)");
            }
            Err(e) => println!("  idle sandbox                  {e}"),
        }
        match calls(ctx.runsc(&["do", "--"]).arg(&options.guest).arg("bench")) {
            Ok(inside) => {
                println!(
                    "  calls, ns (expected: getppid below 3000, read and stat at most 300 more)"
                );
                for (name, ns) in &inside {
                    let n = native.get(name).copied().unwrap_or(f64::NAN);
                    println!(
                        "    {name:12} {ns:9.0}   native {n:7.0}   ratio {:.1}",
                        ns / n
                    );
                }
            }
            Err(e) => println!("  calls                         {e}"),
        }
    }
    Ok(())
}

fn line(calls: &BTreeMap<String, f64>) -> String {
    calls
        .iter()
        .map(|(k, v)| format!("{k} {v:.0} ns"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn calls(command: &mut Command) -> Result<BTreeMap<String, f64>, String> {
    let done = command::run(command, Duration::from_secs(60));
    if !done.ok() {
        return Err(done.describe());
    }
    Ok(done
        .stdout
        .lines()
        .filter_map(|l| {
            let (name, value) = l.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}

/// Median of 15 runs, in milliseconds.
fn start_time(ctx: &Ctx<'_>) -> Result<f64, String> {
    let bundle = ctx.bundle("b", &["/bin/true"], |_| ())?;
    let mut times = Vec::new();
    for i in 0..15 {
        let start = Instant::now();
        let done = ctx.run_bundle(&format!("t{i}"), &bundle);
        if !done.ok() {
            return Err(done.describe());
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(7).copied().unwrap_or(f64::NAN))
}

fn pss_kb(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap_or_default()
        .lines()
        .find_map(|l| {
            l.strip_prefix("Pss:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// User and system time in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').collect())
        .unwrap_or_default();
    let field = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    field(11) + field(12)
}

/// PSS in KiB over all processes, CPU in percent over ten seconds, number of
/// processes, while the guest sleeps.
fn idle(ctx: &Ctx<'_>) -> Result<(u64, f64, usize), String> {
    let mut c = ctx.runsc(&["do", "--", "/bin/sh", "-c", "echo ready; exec sleep 100"]);
    c.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = c.spawn().map_err(|e| e.to_string())?;
    let mut ready = [0u8; 6];
    let started = child
        .stdout
        .as_mut()
        .ok_or("no stdout")?
        .read_exact(&mut ready);
    if let Err(e) = started {
        let _ = child.kill();
        return Err(format!("the guest did not start: {e}"));
    }
    std::thread::sleep(Duration::from_secs(2));
    let all = tree(child.id());
    let pss = all.iter().map(|p| pss_kb(*p)).sum();
    let before: u64 = all.iter().map(|p| ticks(*p)).sum();
    std::thread::sleep(Duration::from_secs(10));
    let after: u64 = all.iter().map(|p| ticks(*p)).sum();
    let _ = child.kill();
    let _ = child.wait();
    Ok((pss, after.saturating_sub(before) as f64 / 10.0, all.len()))
}
