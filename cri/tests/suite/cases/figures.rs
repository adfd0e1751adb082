//! Times, printed for comparison with the reference.

use std::time::{Duration, Instant};

use anyhow::Result;
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::image::{self, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("figures/start", start, figures),
        case!("figures/pull", pull, figures),
        case!("figures/memory", memory, long),
    ]
}

/// An image of 500 MB in eight layers, half of it as compressible as text.
async fn pull(env: Shared) -> Result<()> {
    const FILES: u32 = 160;
    const SIZE: usize = 400 << 10;
    let mut layers = vec![image::busybox()];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for number in 0..8 {
        let mut layer = Layer::default().dir(&format!("l{number}"), 0o755);
        for file in 0..FILES {
            let mut data = Vec::with_capacity(SIZE);
            while data.len() < SIZE {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if file % 2 == 0 {
                    data.extend_from_slice(&state.to_le_bytes());
                } else {
                    data.extend_from_slice(format!("{} lines of text\n", state % 1000).as_bytes());
                }
            }
            layer = layer.file(&format!("l{number}/f{file}"), 0o644, &data);
        }
        layers.push(layer);
    }
    image::push(
        &env.registry,
        "test/large:1",
        layers,
        serde_json::json!({"Cmd": ["x"]}),
    )
    .await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let begin = Instant::now();
        env.pull("test/large:1").await?;
        times.push(begin.elapsed());
        env.remove_image(&env.image("test/large:1")).await?;
    }
    println!(
        "   pull of 500 MB in 8 layers: {:.2?} ({times:.2?})",
        median(&mut times.clone())
    );
    Ok(())
}

/// Memory of the idle daemon and of a supervisor.
async fn memory(env: Shared) -> Result<()> {
    let (_, pod, _) = env.simple(&["sleep", "1000"]).await?;
    let path = env.dir.join("state/pods").join(&pod).join("supervisor.pid");
    let supervisor = std::fs::read_to_string(path)?.trim().parse()?;
    println!(
        "   daemon {} KiB, supervisor {} KiB (proportional)",
        super::load::memory(env.daemon_pid())? >> 10,
        super::load::memory(supervisor)? >> 10,
    );
    env.restart_daemon().await?;
    println!(
        "   fresh daemon {} KiB",
        super::load::memory(env.daemon_pid())? >> 10
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A pod with one container, step by step; the host's network in a second
/// round shows what the plugins cost.
async fn start(env: Shared) -> Result<()> {
    for host_network in [false, true] {
        let mut steps: [Vec<Duration>; 6] = Default::default();
        for _ in 0..21 {
            let mut config = env.pod_config();
            if host_network {
                // A name of its own needs a namespace of its own.
                config.hostname = String::new();
            }
            if host_network
                && let Some(options) = config
                    .linux
                    .as_mut()
                    .and_then(|l| l.security_context.as_mut())
                    .and_then(|s| s.namespace_options.as_mut())
            {
                options.network = NamespaceMode::Node.into();
            }
            let begin = Instant::now();
            let pod = env.run_pod(&config).await?;
            let ran = Instant::now();
            let container = env.container_config("main", &["sleep", "1000"]);
            let id = env.create(&pod, &config, &container).await?;
            let created = Instant::now();
            env.start_container(&id).await?;
            let started = Instant::now();
            env.remove_pod(&pod).await?;
            let times = [
                ran - begin,
                created - ran,
                started - created,
                started - begin,
                started.elapsed(),
                begin.elapsed(),
            ];
            for (all, time) in steps.iter_mut().zip(times) {
                all.push(time);
            }
        }
        let [pod, create, start, sum, remove, _] = steps.each_mut().map(|s| median(s));
        println!(
            "   {}: RunPodSandbox {pod:.1?} + CreateContainer {create:.1?} + StartContainer \
             {start:.1?} = {sum:.1?}; stop and remove {remove:.1?}",
            if host_network {
                "host network"
            } else {
                "bridge"
            },
        );
    }
    Ok(())
}
