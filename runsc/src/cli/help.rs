//! `runsc help`.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Args)]
pub struct Help {
    /// A command, `syscalls` or `platforms`.
    topic: Option<String>,
    /// Format of `help syscalls`.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Help {
    pub fn run(self) -> Result<u8> {
        match self.topic.as_deref() {
            None => super::description().print_help()?,
            Some("syscalls") => {
                let text = match self.format {
                    Format::Table => String::new(),
                    Format::Json => String::new(),
                    Format::Csv => String::new(),
                };
                print!("{text}");
            }
            Some("platforms") => {
                println!("systrap  seccomp traps and shared memory (default)");
                println!("ptrace   PTRACE_SYSEMU, slow, needs no seccomp traps");
            }
            Some(topic) => {
                let mut description = super::description();
                description
                    .find_subcommand_mut(topic)
                    .with_context(|| format!("there is no command or topic {topic:?}"))?
                    .print_help()?;
            }
        }
        Ok(0)
    }
}
