//! `idmap`: clones of mounts whose ids are mapped as in a user namespace. Not
//! for the sandbox, which keeps ids as they are: `runsc-cri` has it done for
//! containers of other runtimes, being a program without unsafe code.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::sys;

#[derive(Args)]
pub struct Idmap {
    /// The user namespace, as a file.
    #[arg(long, value_name = "FILE")]
    userns: PathBuf,
    /// With all mounts below.
    #[arg(long)]
    recursive: bool,
    /// Only try whether it can be done, with one source.
    #[arg(long)]
    check: bool,
    /// What to clone, and where to.
    #[arg(required = true, value_name = "SOURCE TARGET")]
    paths: Vec<PathBuf>,
}

impl Idmap {
    pub fn run(self) -> Result<u8> {
        let userns = File::open(&self.userns)
            .with_context(|| format!("{} can't be opened", self.userns.display()))?;
        let step = if self.check { 1 } else { 2 };
        ensure!(
            self.paths.len().is_multiple_of(step),
            "sources and targets come in pairs"
        );
        for paths in self.paths.chunks(step) {
            let Some(source) = paths.first() else {
                continue;
            };
            let tree = sys::clone_mount(source, self.recursive)
                .with_context(|| format!("{} can't be cloned", source.display()))?;
            sys::map_mount_ids(tree.as_fd(), userns.as_fd(), self.recursive).with_context(|| {
                format!(
                    "the ids of {} can't be mapped: its file system (or a mount below it) has no \
                     idmapped mounts",
                    source.display()
                )
            })?;
            if let Some(target) = paths.get(1) {
                sys::attach_mount(tree.as_fd(), target)
                    .with_context(|| format!("{} can't be mounted on", target.display()))?;
            }
        }
        Ok(0)
    }
}
