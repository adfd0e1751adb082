//! One call of one plugin.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

pub struct Call<'a> {
    pub command: &'a str,
    pub program: &'a Path,
    pub container_id: &'a str,
    pub netns: &'a Path,
    pub interface: &'a str,
    pub args: &'a str,
    pub bin_dirs: &'a [PathBuf],
    pub config: &'a Value,
    pub timeout: Duration,
}

/// The plugin's stdout; its error where it reports one.
pub async fn run(call: Call<'_>) -> Result<String> {
    let name = call.program.file_name().unwrap_or_default().display();
    let path = std::env::join_paths(call.bin_dirs)?;
    let input = serde_json::to_vec(call.config)?;
    let mut child = tokio::process::Command::new(call.program)
        .env("CNI_COMMAND", call.command)
        .env("CNI_CONTAINERID", call.container_id)
        .env("CNI_NETNS", call.netns)
        .env("CNI_IFNAME", call.interface)
        .env("CNI_ARGS", call.args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("network plugin {name} can't be run"))?;
    let mut stdin = child.stdin.take().context("no pipe to the plugin")?;
    let done = async {
        // A plugin may end without reading.
        let _ = stdin.write_all(&input).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(call.timeout, done)
        .await
        .with_context(|| format!("network plugin {name} did not end in {:?}", call.timeout))??;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    #[derive(Deserialize)]
    struct PluginError {
        #[serde(default)]
        code: u32,
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_str::<PluginError>(&stdout) {
        Ok(err) => bail!(
            "network plugin {name} {}: {} {} (code {})",
            call.command,
            err.msg,
            err.details,
            err.code
        ),
        Err(_) => bail!(
            "network plugin {name} {}: {} {}",
            call.command,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}
