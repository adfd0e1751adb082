//! An OCI runtime by its command line, as runc has it. `create` and `exec` are
//! run by the pod's supervisor (it is to be the parent of what they start);
//! everything else is run here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::config::{CgroupDriver, Config};

#[derive(Clone, Debug)]
pub struct Runtime {
    pub handler: String,
    pub path: PathBuf,
    pub sandboxed: bool,
    root: PathBuf,
    options: Vec<String>,
    systemd_cgroup: bool,
    timeout: Duration,
    log_dir: PathBuf,
}

/// The runtime's view of a container.
#[derive(Clone, Debug, Deserialize)]
pub struct State {
    pub status: String,
    #[serde(default)]
    pub pid: i32,
}

impl Runtime {
    pub fn new(config: &Config, handler: &str) -> Result<Self> {
        let Some(settings) = config.handlers.get(handler) else {
            bail!(
                "no runtime handler {handler:?} is configured; there are {:?}",
                config.handlers.keys().collect::<Vec<_>>()
            );
        };
        Ok(Self {
            handler: handler.to_owned(),
            path: find(&settings.path)?,
            sandboxed: settings.sandboxed,
            root: config.state.join("runtimes").join(handler),
            options: settings.options.clone(),
            systemd_cgroup: config.cgroup_driver == CgroupDriver::Systemd,
            timeout: Duration::from_secs(config.runtime_timeout_s),
            log_dir: config.state.join("tmp"),
        })
    }

    /// Program and global arguments; errors go to `log` as JSON lines.
    pub fn command(&self, log: &Path) -> Vec<String> {
        let mut line = vec![
            self.path.display().to_string(),
            format!("--root={}", self.root.display()),
            format!("--log={}", log.display()),
            "--log-format=json".to_owned(),
        ];
        if self.systemd_cgroup {
            line.push("--systemd-cgroup".to_owned());
        }
        line.extend(self.options.iter().cloned());
        line
    }

    /// Runs a command to its end and returns its stdout.
    async fn run(&self, args: &[&str], input: Option<&[u8]>) -> Result<String> {
        let log = self
            .log_dir
            .join(format!("runtime-{}.log", crate::ids::random()));
        let line = self.command(&log);
        let (program, global) = line.split_first().context("no runtime")?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(global)
            .args(args)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let verb = args.first().copied().unwrap_or_default();
        let done = async {
            let mut child = command
                .spawn()
                .with_context(|| format!("{program} can't be run"))?;
            if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
                use tokio::io::AsyncWriteExt;
                stdin.write_all(text).await?;
            }
            anyhow::Ok(child.wait_with_output().await?)
        };
        let output = tokio::time::timeout(self.timeout, done).await;
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        let output = output
            .with_context(|| format!("{program} {verb} did not end in {:?}", self.timeout))??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = last_error(&text)
            .or_else(|| stderr.lines().next_back().map(str::to_owned))
            .unwrap_or_else(|| output.status.to_string());
        bail!("{} {verb}: {message}", self.handler)
    }

    pub async fn start(&self, id: &str) -> Result<()> {
        self.run(&["start", id], None).await.map(drop)
    }

    /// To the first process, or to all of the container.
    pub async fn kill(&self, id: &str, signal: &str, target: KillTarget) -> Result<()> {
        let args: &[&str] = match target {
            KillTarget::Init => &["kill", id, signal],
            KillTarget::All => &["kill", "--all", id, signal],
        };
        self.run(args, None).await.map(drop)
    }

    /// Kills what still runs; no error where the container is unknown.
    pub async fn delete(&self, id: &str) -> Result<()> {
        match self.run(&["delete", "--force", id], None).await {
            Err(err) if is_unknown(&err) => Ok(()),
            other => other.map(drop),
        }
    }

    /// `None` when the runtime does not know it.
    pub async fn state(&self, id: &str) -> Result<Option<State>> {
        match self.run(&["state", id], None).await {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(err) if is_unknown(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// New limits: the OCI `linux.resources` object.
    pub async fn update(&self, id: &str, resources: &serde_json::Value) -> Result<()> {
        let text = serde_json::to_vec(resources)?;
        self.run(&["update", "--resources", "-", id], Some(&text))
            .await
            .map(drop)
    }

    pub async fn version(&self) -> Result<String> {
        self.run(&["--version"], None).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTarget {
    Init,
    All,
}

fn is_unknown(err: &anyhow::Error) -> bool {
    let text = format!("{err:#}");
    text.contains("does not exist") || text.contains("no such container")
}

/// The message of the last error in a runtime's JSON log.
pub fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    log.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .find(|line| matches!(line.level.as_str(), "error" | "fatal"))
        .map(|line| line.msg)
}

/// An absolute path as it is; a name from PATH or our own folder.
pub fn find(program: &Path) -> Result<PathBuf> {
    if program.is_absolute() {
        return Ok(program.to_owned());
    }
    let own = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(own)
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{} is not installed (not in PATH)", program.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_error_counts() {
        let log = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"\"}\n\
                   {\"level\":\"error\",\"msg\":\"second\",\"time\":\"\"}\n\
                   {\"level\":\"warning\",\"msg\":\"third\",\"time\":\"\"}\nrubbish\n";
        assert_eq!(super::last_error(log).as_deref(), Some("second"));
        assert_eq!(super::last_error(""), None);
    }
}
