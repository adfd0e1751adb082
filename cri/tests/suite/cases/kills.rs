//! `kill -9` of daemon, supervisors and runtime processes at random moments of
//! busy pods: nothing stays behind, and a container that nobody has killed has
//! lost no line of its log.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Case;
use super::crash::{kill, nothing_left, supervisor_pid};
use crate::case;
use crate::env::{Shared, read_log};

pub fn cases() -> Vec<Case> {
    vec![
        case!("kills/some", some, own),
        case!("kills/two-hundred", two_hundred, long),
    ]
}

/// Deaths after which everything is removed and looked for.
const BLOCK: u32 = 10;

async fn some(env: Shared) -> Result<()> {
    block(&env, &mut Random(0x2545_f491_4f6c_dd1d), BLOCK).await?;
    Ok(())
}

async fn two_hundred(env: Shared) -> Result<()> {
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    let mut sum = Deaths::default();
    for number in 0..200 / BLOCK {
        let deaths = block(&env, &mut random, BLOCK).await;
        let deaths = deaths.with_context(|| format!("block {number}, so far {sum:?}"))?;
        sum.daemons += deaths.daemons;
        sum.supervisors += deaths.supervisors;
        sum.runtimes += deaths.runtimes;
        sum.lines += deaths.lines;
    }
    println!("   {sum:?}");
    let all = sum.daemons + sum.supervisors + sum.runtimes;
    ensure!(all == 200, "{sum:?}");
    Ok(())
}

#[derive(Debug, Default)]
struct Deaths {
    daemons: u32,
    supervisors: u32,
    runtimes: u32,
    lines: usize,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A pod from its creation to its end; any step may fail.
async fn life(env: Shared) -> Result<()> {
    let (_, pod, id) = env.simple(&["sh", "-c", "echo x; sleep 98765"]).await?;
    env.exec(&id, &["sleep", "0.1"]).await?;
    env.stop(&id, 0).await?;
    env.remove_pod(&pod).await
}

/// Processes of the runtimes, but those of the pod and container `spared`.
fn runtimes(env: &Shared, spared: &[&str]) -> Result<Vec<i32>> {
    let root = env.dir.join("state/runtimes").display().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(&root) && !spared.iter().any(|id| line.contains(id)) {
            found.push(pid);
        }
    }
    Ok(found)
}

async fn block(env: &Shared, random: &mut Random, rounds: u32) -> Result<Deaths> {
    let script = "trap 'echo end $i; exit 0' TERM; i=0; \
                  while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let (_, steady, logger) = env.simple(&["sh", "-c", script]).await?;
    let mut deaths = Deaths::default();
    for round in 0..rounds {
        let work: Vec<_> = (0..3).map(|_| tokio::spawn(life(env.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        let done = one_death(env, random, [&steady, &logger], &mut deaths).await;
        done.with_context(|| format!("round {round}, {deaths:?}"))?;
        for task in work {
            // Whatever came of it.
            let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
            let _ = ended.with_context(|| format!("round {round} hangs, {deaths:?}"))?;
        }
    }
    env.stop(&logger, 10).await.context("stop of the logger")?;
    let status = env.wait_exit(&logger).await?;
    ensure!(status.exit_code == 0, "the logger was hurt: {status:?}");
    let mut lines = read_log(Path::new(&status.log_path))?;
    deaths.lines = lines.len();
    let (_, _, end) = lines.pop().context("an empty log")?;
    for (number, (_, _, line)) in lines.iter().enumerate() {
        ensure!(
            *line == format!("line {}", number + 1),
            "{line:?}, not {}",
            number + 1
        );
    }
    ensure!(end == format!("end {}", lines.len()), "{end}");
    env.clean().await?;
    nothing_left(env).await?;
    Ok(deaths)
}

async fn one_death(
    env: &Shared,
    random: &mut Random,
    spared: [&str; 2],
    deaths: &mut Deaths,
) -> Result<()> {
    let victim = random.below(4);
    if victim >= 2 {
        // The next process of a runtime that comes along.
        for _ in 0..200 {
            let found = runtimes(env, &spared)?;
            let place = usize::try_from(random.below(found.len().max(1) as u64))?;
            if let Some(pid) = found.get(place) {
                kill(*pid);
                deaths.runtimes += 1;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if victim == 1 {
        for pod in std::fs::read_dir(env.dir.join("state/pods"))?.flatten() {
            let pod = pod.file_name().to_string_lossy().into_owned();
            if pod != spared[0]
                && let Ok(pid) = supervisor_pid(env, &pod)
            {
                kill(pid);
                deaths.supervisors += 1;
                return Ok(());
            }
        }
    }
    env.kill_daemon()?;
    deaths.daemons += 1;
    tokio::time::sleep(Duration::from_millis(random.below(100))).await;
    env.start_daemon()?;
    env.wait_ready().await
}
