//! Times, printed for comparison with the reference.

use std::time::{Duration, Instant};

use anyhow::Result;
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![case!("figures/start", start, figures)]
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
