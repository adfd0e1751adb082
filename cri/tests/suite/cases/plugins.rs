//! Network plugins of version 1.1, played by a script.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;
use serde_json::{Value, json};

use super::Case;
use crate::case;
use crate::env::{Shared, wait_for};

pub fn cases() -> Vec<Case> {
    vec![case!("plugins/status-gc-check", status_gc_check, own)]
}

/// The script writes down what it is asked and fails where a file says so.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
cat > "$dir/$CNI_COMMAND.$$"
mv "$dir/$CNI_COMMAND.$$" "$dir/$CNI_COMMAND.json"
if [ -e "$dir/fail-$CNI_COMMAND" ]; then
    echo '{"cniVersion": "1.1.0", "code": 50, "msg": "the script fails"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] ||
    echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.9.9/24"}]}'
"#;

struct Script {
    dir: PathBuf,
    config: PathBuf,
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

impl Script {
    fn install(env: &Shared) -> Result<Self> {
        let script = Self {
            dir: env.dir.join("plugins"),
            config: env.dir.join("cni/05-script.conflist"),
        };
        std::fs::create_dir_all(&script.dir)?;
        let path = script.dir.join("suite-script");
        std::fs::write(&path, SCRIPT)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        let list = json!({
            "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "script",
            "plugins": [{"type": "suite-script", "capabilities": {"portMappings": true}}],
        });
        std::fs::write(&script.config, list.to_string())?;
        Ok(script)
    }

    /// What the plugin was given at the last call of this kind.
    fn heard(&self, command: &str) -> Result<Value> {
        let text = std::fs::read(self.dir.join(format!("{command}.json")))
            .with_context(|| format!("no {command}"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn forget(&self, command: &str) {
        let _ = std::fs::remove_file(self.dir.join(format!("{command}.json")));
    }

    fn fails(&self, command: &str, fails: bool) -> Result<()> {
        let path = self.dir.join(format!("fail-{command}"));
        if fails {
            std::fs::write(path, "")?;
        } else {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

async fn network_ready(env: &Shared) -> Result<(bool, String)> {
    let mut client = env.runtime().await?;
    let status = client.status(StatusRequest::default()).await?.into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady");
    let network = network.context("no condition")?;
    Ok((network.status, network.message))
}

async fn check_of(env: &Shared, pod: &str) -> Result<String> {
    let mut client = env.runtime().await?;
    let status = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.into(),
            verbose: true,
        })
        .await?;
    let info = status.into_inner().info.remove("info").context("no info")?;
    let info: Value = serde_json::from_str(&info)?;
    let check = info.get("networkCheck").and_then(Value::as_str);
    Ok(check.context("no check")?.to_owned())
}

async fn status_gc_check(env: Shared) -> Result<()> {
    let script = Script::install(&env)?;
    script_is_used(&env, &script).await?;
    drop(script);
    // The other network is back at once.
    ensure!(network_ready(&env).await?.0);
    let log = std::fs::read_to_string(env.dir.join("daemon.log"))?;
    ensure!(
        log.contains("network configuration changed"),
        "the change of the directory was not noticed"
    );
    Ok(())
}

async fn script_is_used(env: &Shared, script: &Script) -> Result<()> {
    script.fails("STATUS", true)?;
    let (ready, message) = network_ready(env).await?;
    ensure!(!ready && message.contains("the script fails"), "{message}");
    script.fails("STATUS", false)?;
    wait_for("readiness", || !script.dir.join("fail-STATUS").exists()).await?;
    let mut ready = false;
    for _ in 0..100 {
        ready = network_ready(env).await?.0;
        if ready {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    ensure!(ready, "the network does not become ready");
    let status = script.heard("STATUS")?;
    ensure!(
        status.get("cniVersion") == Some(&json!("1.1.0")),
        "{status}"
    );
    let (_, pod, _) = env.simple(&["sleep", "1000"]).await?;
    ensure!(env.pod_ip(&pod).await? == "10.9.9.9");
    ensure!(check_of(env, &pod).await? == "ok");
    let given = script.heard("CHECK")?;
    ensure!(
        given.pointer("/prevResult/ips/0/address").is_some(),
        "{given}"
    );
    script.fails("CHECK", true)?;
    let check = check_of(env, &pod).await?;
    ensure!(check.contains("the script fails"), "{check}");
    script.forget("GC");
    script.forget("CHECK");
    // A new daemon has what is not in use dropped, and looks at what is.
    env.restart_daemon().await?;
    let valid = script.heard("GC")?;
    let valid = valid.get("cni.dev/valid-attachments").context("no list")?;
    ensure!(
        valid == &json!([{"containerID": pod, "ifname": "eth0"}]),
        "{valid}"
    );
    wait_for("CHECK", || script.heard("CHECK").is_ok()).await?;
    wait_for("the complaint", || {
        env.daemon_log().contains("not as it was")
    })
    .await?;
    script.fails("CHECK", false)?;
    env.remove_pod(&pod).await?;
    script.heard("DEL")?;
    env.restart_daemon().await?;
    let valid = script.heard("GC")?;
    ensure!(
        valid.get("cni.dev/valid-attachments") == Some(&json!([])),
        "{valid}"
    );
    Ok(())
}
