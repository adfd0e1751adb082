//! Mounts whose ids are mapped for a pod's user namespace. The kernel call has
//! no safe wrapper, so `runsc` carries it out (`runsc idmap`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A pod's user namespace, as far as files are concerned.
#[derive(Clone, Debug)]
pub struct IdMap {
    /// The program that makes the mounts.
    pub program: PathBuf,
    /// The namespace, pinned.
    pub userns: PathBuf,
    /// Host ids of its root.
    pub root: (u32, u32),
}

impl IdMap {
    /// Clones `sources` to `targets` with mapped ids; all of the mounts below
    /// the sources too where `depth` says so.
    pub fn mount(&self, pairs: &[(PathBuf, PathBuf)], depth: Depth) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let paths = pairs.iter().flat_map(|(from, to)| [from, to]);
        self.run(depth, paths)
    }

    /// Whether the file system of `dir` can be mapped.
    pub fn check(&self, dir: &Path) -> Result<()> {
        self.run(Depth::Check, [dir])
    }

    fn run(&self, depth: Depth, paths: impl IntoIterator<Item: AsRef<Path>>) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("idmap").arg("--userns").arg(&self.userns);
        match depth {
            Depth::Check => drop(command.arg("--check")),
            Depth::Recursive => drop(command.arg("--recursive")),
            Depth::One => {}
        }
        for path in paths {
            command.arg(path.as_ref());
        }
        let output = command
            .output()
            .with_context(|| format!("{} can't be run", self.program.display()))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    One,
    Recursive,
    Check,
}
