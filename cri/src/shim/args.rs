//! The command line, as containerd calls shims: flags of Go's `flag` package,
//! then `start`, `delete` or nothing.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// What the shim is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a shim process and print its address.
    Start,
    /// Clean up after a shim that has died.
    Delete,
    /// Be the shim process.
    Serve,
    Version,
}

#[derive(Clone, Debug)]
pub struct Args {
    pub action: Action,
    /// Namespace of containerd.
    pub namespace: String,
    pub id: String,
    /// Socket of containerd.
    pub address: String,
    /// The containerd program, which publishes events if there is no socket
    /// for them.
    pub publish_binary: String,
    pub bundle: Option<PathBuf>,
    pub debug: bool,
}

/// Parses the arguments without the program's name.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Args> {
    let mut parsed = Args {
        action: Action::Serve,
        namespace: String::new(),
        id: String::new(),
        address: String::new(),
        publish_binary: String::new(),
        bundle: None,
        debug: false,
    };
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix('-') else {
            parsed.action = match arg.as_str() {
                "start" => Action::Start,
                "delete" => Action::Delete,
                other => bail!("unknown command {other:?}; containerd calls start and delete"),
            };
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, mut value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "v" | "version" => {
                parsed.action = Action::Version;
                continue;
            }
            "debug" => {
                parsed.debug = value.as_deref() != Some("false");
                continue;
            }
            _ => {}
        }
        if value.is_none() {
            value = args.next();
        }
        let Some(value) = value else {
            bail!("-{name} needs a value");
        };
        match name {
            "namespace" => parsed.namespace = value,
            "id" => parsed.id = value,
            "address" => parsed.address = value,
            "publish-binary" => parsed.publish_binary = value,
            "bundle" => parsed.bundle = Some(PathBuf::from(value)),
            // Of no use here, but containerd may give them.
            "socket" | "ttrpc-address" => {}
            other => bail!("unknown flag -{other}"),
        }
    }
    if parsed.action != Action::Version && (parsed.namespace.is_empty() || parsed.id.is_empty()) {
        bail!("-namespace and -id are needed; this program is called by containerd");
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Args> {
        parse(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn as_containerd_calls_it() {
        let args = words(
            "-namespace k8s.io -id abc -address /run/c.sock -publish-binary /bin/containerd \
             -debug start",
        )
        .expect("valid");
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.id.as_str(), args.debug), ("abc", true));
        let args = words("--namespace=x --id=y -bundle /b delete").expect("valid");
        assert_eq!(args.action, Action::Delete);
        assert_eq!(args.bundle, Some(PathBuf::from("/b")));
        assert!(words("-id abc").is_err());
        assert!(words("-namespace x -id y stop").is_err());
        assert!(words("-v").is_ok());
    }
}
