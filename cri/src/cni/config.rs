//! The configuration directory: the first valid file, by name, is the network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The newest version that is spoken.
const NEWEST: (u32, u32) = (1, 1);

/// A network configuration list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkList {
    #[serde(rename = "cniVersion")]
    pub version: String,
    /// Others it may be used with; the newest that we know is taken.
    #[serde(rename = "cniVersions", skip_serializing_if = "Vec::is_empty")]
    versions: Vec<String>,
    pub name: String,
    #[serde(rename = "disableCheck")]
    pub disable_check: bool,
    #[serde(rename = "disableGC")]
    pub disable_gc: bool,
    /// There is no folder of further plugins.
    #[serde(rename = "loadOnlyInlinedPlugins")]
    only_inlined: bool,
    pub plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// Its version is this one or newer.
    pub fn since(&self, major: u32, minor: u32) -> bool {
        number(&self.version) >= (major, minor)
    }

    /// The version to speak, and plugins of the folder `NAME/` beside it.
    fn settle(&mut self, path: &Path) {
        let known = self.versions.iter().filter(|v| number(v) <= NEWEST);
        if let Some(best) = known.max_by_key(|v| number(v))
            && number(best) > number(&self.version)
        {
            self.version.clone_from(best);
        }
        if self.only_inlined || self.name.contains('/') || self.name.is_empty() {
            return;
        }
        let Some(dir) = path.parent() else { return };
        for file in files(&dir.join(&self.name), &["conf"]).unwrap_or_default() {
            let plugin = std::fs::read(&file).map(|text| serde_json::from_slice(&text));
            match plugin {
                Ok(Ok(plugin)) => self.plugins.push(plugin),
                _ => tracing::warn!("{} is not a plugin's configuration", file.display()),
            }
        }
    }
}

fn number(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The first valid one, or why there is none.
pub fn first(dir: &Path) -> Result<NetworkList> {
    let mut problem = None;
    for path in files(dir, &["conflist", "conf", "json"])? {
        match parse(&path) {
            Ok(list) => return Ok(list),
            Err(err) => problem = problem.or(Some(err)),
        }
    }
    Err(problem.unwrap_or_else(|| {
        anyhow::anyhow!(
            "no network configuration in {} (`runsc-cri init` writes one)",
            dir.display()
        )
    }))
}

/// Files of a folder, by name; none where there is no folder.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(err) => return Err(err).with_context(|| dir.display().to_string()),
    };
    files.retain(|path| {
        path.extension()
            .is_some_and(|e| extensions.iter().any(|known| e == *known))
    });
    files.sort();
    Ok(files)
}

/// A list (`.conflist`) or a single plugin (`.conf`, `.json`).
fn parse(path: &Path) -> Result<NetworkList> {
    let text = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    let value: Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not valid", path.display()))?;
    let mut list: NetworkList = if value.get("plugins").is_some() {
        serde_json::from_value(value).with_context(|| format!("{} is not valid", path.display()))?
    } else {
        let Value::Object(plugin) = value else {
            bail!("{} is not an object", path.display());
        };
        let text = |key: &str| {
            plugin
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        NetworkList {
            version: text("cniVersion"),
            name: text("name"),
            plugins: vec![plugin],
            ..NetworkList::default()
        }
    };
    list.settle(path);
    if list.name.is_empty() || list.plugins.is_empty() {
        bail!("{} has no name or no plugin", path.display());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_plugins_of_a_folder() {
        let dir = std::env::temp_dir().join(format!("cni-config-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("net")).expect("folder");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("file");
        write("00-broken.conflist", "{");
        write(
            "10-net.conflist",
            r#"{"cniVersion": "0.4.0", "cniVersions": ["1.1.0", "1.0.0", "9.0.0"], "name": "net",
                "plugins": [{"type": "bridge"}]}"#,
        );
        write("net/20-more.conf", r#"{"type": "tuning"}"#);
        let list = first(&dir).expect("valid");
        assert_eq!(list.version, "1.1.0");
        assert!(list.since(0, 4) && list.since(1, 1) && !list.since(1, 2));
        assert_eq!(list.plugins.len(), 2);
        std::fs::remove_dir_all(&dir).expect("remove");
        assert!(first(&dir).is_err());
    }
}
