//! Command line of `run-tests`.

use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Options {
    /// Also what takes minutes.
    pub long: bool,
    /// Only names that contain one of these; all when empty.
    pub filters: Vec<String>,
    pub platforms: Vec<String>,
    /// No sandbox at all: proves the tests themselves.
    pub native_only: bool,
    /// Groups to run; all when empty.
    pub groups: Vec<String>,
    pub jobs: usize,
    pub runsc: PathBuf,
    pub guest: PathBuf,
    /// Directory of other binaries (`fuzz-syscalls`).
    pub static_dir: PathBuf,
    pub source: PathBuf,
    /// Writes `case platform first-error-line` here.
    pub report: Option<PathBuf>,
    /// Keeps the output of failed cases of the long suites here.
    pub logs: Option<PathBuf>,
    /// Appends every result here as a line of JSON ([`super::vm`]).
    pub results: Option<PathBuf>,
    /// Only the tests in a virtual machine.
    pub vm: bool,
    /// Prints every result, not only failures.
    pub verbose: bool,
}

pub const USAGE: &str = "usage: run-tests [--long] [--filter TEXT]… [--platform systrap|ptrace]… \
[--native-only] [--group unit|native|guest|programs|cli|robust|pods|security|cgroups|engines|oci|cri|long]… [--jobs N] [--runsc FILE] \
[--static-dir DIR] [--report FILE] [--logs DIR] \
[--results FILE] [--source DIR] [--vm] [--verbose]";

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let top = source.parent().unwrap_or(&source).to_owned();
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let mut options = Self {
            long: false,
            filters: Vec::new(),
            platforms: Vec::new(),
            native_only: false,
            groups: Vec::new(),
            jobs: cores,
            runsc: top.join("target/release/runsc"),
            guest: PathBuf::new(),
            static_dir: top.join("target/x86_64-unknown-linux-gnu/debug"),
            source,
            report: None,
            logs: None,
            results: None,
            vm: false,
            verbose: false,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((n, v)) => (n.to_owned(), Some(v.to_owned())),
                None => (arg.clone(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| args.next())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            match name.as_str() {
                "--long" => options.long = true,
                "--native-only" => options.native_only = true,
                "--verbose" | "-v" => options.verbose = true,
                "--filter" => options.filters.push(value()?),
                "--platform" => options.platforms.push(value()?),
                "--group" => options.groups.push(value()?),
                "--jobs" => options.jobs = value()?.parse().map_err(|e| format!("--jobs: {e}"))?,
                "--runsc" => options.runsc = PathBuf::from(value()?),
                "--static-dir" => options.static_dir = PathBuf::from(value()?),
                "--report" => options.report = Some(PathBuf::from(value()?)),
                "--logs" => options.logs = Some(PathBuf::from(value()?)),
                "--results" => options.results = Some(PathBuf::from(value()?)),
                "--source" => options.source = PathBuf::from(value()?),
                "--vm" => options.vm = true,
                _ => return Err(format!("unknown option {arg}\n{USAGE}")),
            }
        }
        if options.platforms.is_empty() {
            options.platforms = vec!["systrap".into(), "ptrace".into()];
        }
        // Tests run in directories of their own.
        for path in [&mut options.runsc, &mut options.static_dir] {
            if let Ok(absolute) = path.canonicalize() {
                *path = absolute;
            }
        }
        options.guest = options.static_dir.join("guest");
        Ok(options)
    }

    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }

    pub fn group(&self, name: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|g| g == name)
    }
}
