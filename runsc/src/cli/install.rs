//! `install` and `uninstall`: names this runtime in an engine's configuration.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// What the engines are to call it.
const NAME: &str = "runsc";

/// Lines between which a file that is not ours alone holds our part.
const BEGIN: &str = "# begin runsc (runsc uninstall --engine containerd removes this)";
const END: &str = "# end runsc";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Docker,
    Containerd,
    Crio,
    Podman,
}

impl Engine {
    /// Its configuration file, without the leading slash.
    const fn file(self) -> &'static str {
        match self {
            Self::Docker => "etc/docker/daemon.json",
            Self::Containerd => "etc/containerd/config.toml",
            Self::Crio => "etc/crio/crio.conf.d/99-runsc.conf",
            Self::Podman => "etc/containers/containers.conf.d/99-runsc.conf",
        }
    }

    /// What to do for it to take effect.
    const fn reload(self) -> &'static str {
        match self {
            Self::Docker => "systemctl reload docker; docker run --runtime=runsc …",
            Self::Containerd => "systemctl restart containerd; RuntimeClass with handler runsc",
            Self::Crio => "systemctl restart crio; RuntimeClass with handler runsc",
            Self::Podman => "podman --runtime=runsc run …",
        }
    }
}

#[derive(Args)]
struct Target {
    /// Whose configuration to change.
    #[arg(long, value_enum, default_value_t = Engine::Docker)]
    engine: Engine,
    /// Show the change and don't make it.
    #[arg(long)]
    dry_run: bool,
    /// Look for configuration files below this directory.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root_dir: PathBuf,
}

/// `install`.
#[derive(Args)]
pub struct Install {
    #[command(flatten)]
    target: Target,
    /// The runtime to name; this program by default.
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,
}

/// `uninstall`.
#[derive(Args)]
pub struct Uninstall {
    #[command(flatten)]
    target: Target,
}

impl Install {
    pub fn run(self) -> Result<u8> {
        let program = match &self.runtime {
            Some(path) => fs::canonicalize(path)
                .with_context(|| format!("--runtime {} can't be found", path.display()))?,
            None => std::env::current_exe().context("this program can't be found")?,
        };
        let program = program
            .to_str()
            .context("the path of the runtime is not UTF-8")?;
        self.target.change(Some(program))?;
        if !self.target.dry_run {
            println!("then: {}", self.target.engine.reload());
        }
        Ok(0)
    }
}

impl Uninstall {
    pub fn run(self) -> Result<u8> {
        self.target.change(None)?;
        Ok(0)
    }
}

impl Target {
    /// Edits the file so that it names `program`, or no runtime of ours.
    fn change(&self, program: Option<&str>) -> Result<()> {
        let path = self.root_dir.join(self.engine.file());
        let old = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            Err(err) => {
                return Err(err).with_context(|| format!("{} can't be read", path.display()));
            }
        };
        let new = edited(self.engine, old.as_deref(), program)
            .with_context(|| format!("{} is left as it is", path.display()))?;
        if new == old {
            println!("{}: nothing to change", path.display());
            return Ok(());
        }
        print_difference(
            &path,
            old.as_deref().unwrap_or(""),
            new.as_deref().unwrap_or(""),
        );
        if self.dry_run {
            return Ok(());
        }
        if old.is_some() {
            let backup = path.with_added_extension("before-runsc");
            fs::copy(&path, &backup)
                .with_context(|| format!("backup {} can't be made", backup.display()))?;
            println!("backup: {}", backup.display());
        }
        match new {
            Some(text) => replace(&path, &text),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("{} can't be changed", path.display()))
    }
}

/// Replaces a file so that a crash leaves the old or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = path.with_added_extension("runsc-new");
    let mut file = fs::File::create(&temporary)?;
    let mode = fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode());
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// The file's new text; `None` if there is to be no file.
fn edited(engine: Engine, old: Option<&str>, program: Option<&str>) -> Result<Option<String>> {
    match engine {
        Engine::Docker => docker(old, program),
        Engine::Containerd => containerd(old, program),
        Engine::Crio => Ok(program.map(|program| {
            format!(
                "[crio.runtime.runtimes.{NAME}]\nruntime_path = {program:?}\n\
                 runtime_type = \"oci\"\nruntime_root = \"/run/{NAME}\"\n"
            )
        })),
        Engine::Podman => Ok(
            program.map(|program| format!("[engine.runtimes]\n{NAME} = [\n  {program:?},\n]\n"))
        ),
    }
}

fn docker(old: Option<&str>, program: Option<&str>) -> Result<Option<String>> {
    let text = old.map(str::trim).filter(|text| !text.is_empty());
    let mut config: Value = match text {
        Some(text) => serde_json::from_str(text).context("it is not valid JSON")?,
        None => json!({}),
    };
    let Some(object) = config.as_object_mut() else {
        bail!("it is not a JSON object");
    };
    let before = object.clone();
    match program {
        Some(program) => {
            let runtimes = object.entry("runtimes").or_insert_with(|| json!({}));
            let Some(runtimes) = runtimes.as_object_mut() else {
                bail!("\"runtimes\" is not a JSON object");
            };
            let own = runtimes.entry(NAME).or_insert_with(|| json!({}));
            let Some(own) = own.as_object_mut() else {
                bail!("\"runtimes.{NAME}\" is not a JSON object");
            };
            own.insert("path".to_owned(), program.into());
        }
        None => {
            ensure!(
                object.get("default-runtime").and_then(Value::as_str) != Some(NAME),
                "\"default-runtime\" is {NAME}: name another first"
            );
            if let Some(runtimes) = object.get_mut("runtimes").and_then(Value::as_object_mut) {
                runtimes.remove(NAME);
                if runtimes.is_empty() {
                    object.remove("runtimes");
                }
            }
        }
    }
    if *object == before {
        return Ok(old.map(str::to_owned));
    }
    Ok(Some(format!("{config:#}\n")))
}

fn containerd(old: Option<&str>, program: Option<&str>) -> Result<Option<String>> {
    let text = old.unwrap_or("version = 2\n");
    let mut rest = text.to_owned();
    if let Some(begin) = text.find(BEGIN) {
        let after = text.get(begin..).unwrap_or_default();
        let Some(length) = after.find(END) else {
            bail!("the line {END:?} is missing");
        };
        let tail = after.get(length + END.len()..).unwrap_or_default();
        let head = text.get(..begin).unwrap_or_default().trim_end_matches('\n');
        rest = format!("{head}\n{}", tail.trim_start_matches('\n'));
    }
    let Some(program) = program else {
        return Ok(old.map(|_| rest));
    };
    ensure!(
        !rest.contains(&format!("runtimes.{NAME}]")),
        "it has a runtime {NAME} of its own; remove that first"
    );
    // Version 3 has other names for its sections.
    let plugin = match rest
        .lines()
        .find_map(|line| line.trim().strip_prefix("version"))
        .map(|value| value.trim_start_matches([' ', '=']).trim())
    {
        Some("2") => "io.containerd.grpc.v1.cri",
        Some("3") => "io.containerd.cri.v1.runtime",
        _ => bail!("it is not of version 2 or 3"),
    };
    let section = format!("plugins.\"{plugin}\".containerd.runtimes.{NAME}");
    let rest = rest.trim_end();
    Ok(Some(format!(
        "{rest}\n\n{BEGIN}\n[{section}]\n  runtime_type = \"io.containerd.runc.v2\"\n\
         [{section}.options]\n  BinaryName = {program:?}\n{END}\n"
    )))
}

/// Shows what changes: one hunk, from the first line that differs to the last.
fn print_difference(path: &Path, old: &str, new: &str) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let short = old.len().min(new.len()) - head;
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(short)
        .take_while(same)
        .count();
    println!("--- {0}\n+++ {0}", path.display());
    let changed = |lines: &[&str], sign: char| {
        for line in lines.iter().take(lines.len() - tail).skip(head) {
            println!("{sign}{line}");
        }
    };
    changed(&old, '-');
    changed(&new, '+');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_keeps_the_rest() {
        let old = r#"{"debug": true, "runtimes": {"kata": {"path": "/kata"}}}"#;
        let new = docker(Some(old), Some("/bin/runsc"))
            .expect("edited")
            .expect("text");
        let value: Value = serde_json::from_str(&new).expect("json");
        assert_eq!(value["runtimes"]["runsc"]["path"], "/bin/runsc");
        assert_eq!(value["runtimes"]["kata"]["path"], "/kata");
        assert_eq!(value["debug"], true);
        let again = docker(Some(&new), Some("/bin/runsc")).expect("edited");
        assert_eq!(again.as_deref(), Some(new.as_str()));
        let back = docker(Some(&new), None).expect("edited").expect("text");
        let back: Value = serde_json::from_str(&back).expect("json");
        assert_eq!(back, serde_json::from_str::<Value>(old).expect("json"));
    }

    #[test]
    fn docker_refuses_what_it_does_not_understand() {
        for old in ["[]", "{", r#"{"runtimes": 1}"#] {
            assert!(docker(Some(old), Some("/bin/runsc")).is_err(), "{old}");
        }
        let default = r#"{"default-runtime": "runsc"}"#;
        assert!(docker(Some(default), None).is_err());
    }

    #[test]
    fn containerd_part_comes_and_goes() {
        let old = "version = 2\n[debug]\n  level = \"info\"\n";
        let new = containerd(Some(old), Some("/bin/runsc"))
            .expect("edited")
            .expect("text");
        assert!(new.starts_with(old) && new.contains("BinaryName = \"/bin/runsc\""));
        let moved = containerd(Some(&new), Some("/usr/bin/runsc"))
            .expect("edited")
            .expect("text");
        assert!(moved.contains("/usr/bin/runsc") && !moved.contains("\"/bin/runsc"));
        assert_eq!(
            containerd(Some(&moved), None).expect("edited").as_deref(),
            Some(old)
        );
        assert!(containerd(Some("version = 1\n"), Some("/bin/runsc")).is_err());
    }

    #[test]
    fn drop_ins_are_whole_files() {
        for engine in [Engine::Crio, Engine::Podman] {
            let new = edited(engine, None, Some("/bin/runsc")).expect("edited");
            assert!(new.expect("text").contains("\"/bin/runsc\""));
            assert_eq!(edited(engine, Some("old"), None).expect("edited"), None);
        }
    }
}
