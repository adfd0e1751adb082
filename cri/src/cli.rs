//! Command line. Without a command the daemon runs.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, LogFormat};
use crate::image_command::{self, ImageCommand};
use crate::images::unpack;
use crate::{cni, daemon, doctor, supervisor};

#[derive(Parser)]
#[command(version, about = "Kubernetes container runtime (CRI) on OCI runtimes")]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Places {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Images, metadata and writable layers; kept over reboots.
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Sockets, namespaces and mounts; on a tmpfs.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket to serve.
    #[arg(long, global = true, value_name = "SOCKET")]
    listen: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The configuration file.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Write a bridge network configuration for a single node.
    Init {
        /// Addresses of this node's pods.
        #[arg(long, default_value = "10.88.0.0/16")]
        subnet: String,
    },
    /// Images of the running daemon.
    Image {
        #[command(subcommand)]
        what: ImageCommand,
    },
    /// Check what this machine lacks for running pods.
    Doctor,
    /// Process of one pod; started by the daemon.
    #[command(hide = true)]
    Supervise { dir: PathBuf },
    /// First process of a shared pid namespace; started by the supervisor.
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        user: bool,
        #[arg(long)]
        orphan: bool,
    },
    /// Unpacks a layer from stdin into the current directory; started by the
    /// daemon.
    #[command(hide = true)]
    Unpack {
        #[arg(long)]
        max_bytes: u64,
        #[arg(long)]
        max_files: u64,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the built-in values.
    Default,
    /// Print what is in force.
    Show,
}

impl Places {
    /// The file named, else the usual one where it exists, else the defaults;
    /// flags come on top.
    fn config(&self) -> Result<Config> {
        const USUAL: &str = "/etc/runsc-cri/config.toml";
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None if std::path::Path::new(USUAL).exists() => Config::load(USUAL.as_ref())?,
            None => Config::default(),
        };
        if let Some(root) = &self.root {
            config.root.clone_from(root);
        }
        if let Some(state) = &self.state {
            config.state.clone_from(state);
            if self.listen.is_none() && config.listen == Config::default().listen {
                config.listen = state.join("runsc-cri.sock");
            }
        }
        if let Some(listen) = &self.listen {
            config.listen.clone_from(listen);
        }
        Ok(config)
    }
}

pub fn run() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Supervise { dir }) => supervisor::run(&dir),
        Some(Command::Hold { user: true, .. }) => supervisor::hold_user(),
        Some(Command::Hold { orphan: true, .. }) => supervisor::hold_orphan(),
        Some(Command::Hold { .. }) => supervisor::hold(),
        Some(Command::Unpack {
            max_bytes,
            max_files,
        }) => unpack::run(unpack::Limits {
            bytes: max_bytes,
            files: max_files,
        }),
        Some(Command::Config { what }) => {
            let config = match what {
                ConfigCommand::Default => Config::default(),
                ConfigCommand::Show => cli.places.config()?,
            };
            print!("{}", toml::to_string_pretty(&config)?);
            Ok(())
        }
        Some(Command::Init { subnet }) => {
            let path = cni::init::write(&cli.places.config()?.cni, &subnet)?;
            println!("{} written", path.display());
            Ok(())
        }
        Some(Command::Image { what }) => image_command::run(what, &cli.places.config()?.listen),
        Some(Command::Doctor) => doctor::run(&cli.places.config()?),
        None => serve(cli.places.config()?),
    }
}

/// The allocator is told by its environment to give memory back after a burst
/// (mallopt(3)); it reads that at the start of a program, so this program
/// starts itself once more.
fn with_frugal_allocator() {
    const SETTINGS: [(&str, &str); 2] = [
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ];
    if SETTINGS
        .iter()
        .any(|(name, _)| std::env::var_os(name).is_some())
    {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "runsc-cri".into());
    // By its path: the kernel names a process by it.
    let err = process::Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(SETTINGS)
        .exec();
    // It goes without, too.
    eprintln!("runsc-cri can't start itself again: {err}");
}

fn serve(config: Config) -> Result<()> {
    with_frugal_allocator();
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .with_context(|| format!("log.level {:?}", config.log.level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match config.log.format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().init(),
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .max_blocking_threads(64)
        .enable_all()
        .build()?
        .block_on(daemon::run(config))
}
