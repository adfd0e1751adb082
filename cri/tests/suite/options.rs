//! Command line of the suite.

use std::path::PathBuf;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub long: bool,
    pub list: bool,
    pub verbose: bool,
    pub filters: Vec<String>,
    /// Handler of the pods; the server's default when empty.
    pub handler: String,
    pub endpoint: Option<PathBuf>,
    /// Test containerd instead, as the reference.
    pub containerd: bool,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--long" => options.long = true,
                "--list" => options.list = true,
                "--verbose" => options.verbose = true,
                "--filter" => options.filters.push(value()?),
                "--handler" => options.handler = value()?,
                "--containerd" => options.containerd = true,
                "--endpoint" => options.endpoint = Some(value()?.into()),
                // What cargo passes on.
                "--nocapture" | "--test-threads" => {}
                other => return Err(format!("unknown option {other}")),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }
}
