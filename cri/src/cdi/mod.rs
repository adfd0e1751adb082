//! Devices by the Container Device Interface (CDI specification 1.0): vendors
//! leave files that say what a container needs to use a device, and containers
//! name devices as `vendor.com/class=name`.
//!
//! The folders are read anew for each container that names a device; files of
//! a later folder win over those of an earlier one.

mod inject;
mod spec;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub use inject::inject;
pub use spec::Edits;
use spec::Spec;

use crate::proto::ContainerConfig;

/// Annotations whose key begins so name devices too, separated by commas.
const ANNOTATION: &str = "cdi.k8s.io/";

/// The devices a container names, each once: those of its annotations first.
pub fn wanted(config: &ContainerConfig) -> Vec<String> {
    let mut annotations: Vec<_> = config
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .collect();
    annotations.sort();
    let annotated = annotations.iter().flat_map(|(_, names)| names.split(','));
    let requested = config.cdi_devices.iter().map(|device| device.name.as_str());
    let mut all: Vec<String> = Vec::new();
    for name in annotated.chain(requested).map(str::trim) {
        if !name.is_empty() && !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    all
}

/// What the devices of these names need, in their order. What a file says for
/// all of its devices comes once, before the first of them.
pub fn resolve(dirs: &[PathBuf], names: &[String]) -> Result<Vec<Edits>> {
    let (specs, problems) = load(dirs);
    let mut places: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    for (number, (_, spec)) in specs.iter().enumerate() {
        for (index, device) in spec.devices.iter().enumerate() {
            let name = format!("{}={}", spec.kind, device.name);
            places.entry(name).or_default().push((number, index));
        }
    }
    let mut used = vec![false; specs.len()];
    let mut found = Vec::new();
    for name in names {
        spec::check_name(name)?;
        let candidates = places.get(name).map(Vec::as_slice).unwrap_or_default();
        let folder = |place: &(usize, usize)| specs.get(place.0).map(|(folder, _)| *folder);
        let best = candidates.iter().max_by_key(|place| folder(place));
        let Some(best) = best else {
            let problems = match problems.as_slice() {
                [] => String::new(),
                all => format!(" (files that are not valid: {})", all.join("; ")),
            };
            bail!("CDI device {name:?} is in no file of {dirs:?}{problems}");
        };
        if candidates
            .iter()
            .filter(|c| folder(c) == folder(best))
            .count()
            > 1
        {
            bail!("CDI device {name:?} is in more than one file of one folder");
        }
        let Some((_, spec)) = specs.get(best.0) else {
            continue;
        };
        if let Some(used) = used.get_mut(best.0)
            && !std::mem::replace(used, true)
        {
            found.extend(spec.container_edits.clone());
        }
        found.extend(
            spec.devices
                .get(best.1)
                .and_then(|device| device.container_edits.clone()),
        );
    }
    Ok(found)
}

/// All valid files with the number of their folder, and what is wrong with the
/// others: those don't stand in the way of devices that are described well.
fn load(dirs: &[PathBuf]) -> (Vec<(usize, Spec)>, Vec<String>) {
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    for (folder, dir) in dirs.iter().enumerate() {
        for path in files(dir) {
            match Spec::read(&path) {
                Ok(spec) => specs.push((folder, spec)),
                Err(err) => {
                    tracing::warn!("CDI file {}: {err:#}", path.display());
                    problems.push(format!("{}: {err:#}", path.display()));
                }
            }
        }
    }
    (specs, problems)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"))
        .collect();
    all.sort();
    all
}

/// Names and kinds of all devices, for the verbose status.
pub fn devices(dirs: &[PathBuf]) -> BTreeMap<String, usize> {
    let (specs, _) = load(dirs);
    let mut all = BTreeMap::new();
    for (_, spec) in specs {
        let count: &mut usize = all.entry(spec.kind).or_default();
        *count = count.saturating_add(spec.devices.len());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(name: &str) -> Vec<PathBuf> {
        let top = std::env::temp_dir().join(format!("cdi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&top);
        let both = vec![top.join("etc"), top.join("run")];
        for dir in &both {
            std::fs::create_dir_all(dir).expect("folder");
        }
        both
    }

    fn write(dir: &Path, name: &str, kind: &str, device: &str, value: &str) {
        let text = serde_json::json!({
            "cdiVersion": "0.6.0",
            "kind": kind,
            "containerEdits": {"env": ["ALL=yes"]},
            "devices": [{"name": device, "containerEdits": {"env": [format!("D={value}")]}}],
        });
        std::fs::write(dir.join(name), text.to_string()).expect("file");
    }

    fn env(dirs: &[PathBuf], names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let edits = resolve(dirs, &names)?;
        Ok(edits.into_iter().flat_map(|e| e.env).collect())
    }

    #[test]
    fn later_folders_win_and_conflicts_are_errors() {
        let dirs = folders("order");
        let [etc, run] = dirs.as_slice() else {
            unreachable!()
        };
        write(etc, "a.json", "v.com/gpu", "0", "etc");
        assert_eq!(
            env(&dirs, &["v.com/gpu=0"]).expect("found"),
            ["ALL=yes", "D=etc"]
        );
        write(run, "a.json", "v.com/gpu", "0", "run");
        assert_eq!(
            env(&dirs, &["v.com/gpu=0"]).expect("found"),
            ["ALL=yes", "D=run"]
        );
        write(run, "b.json", "v.com/gpu", "0", "again");
        assert!(env(&dirs, &["v.com/gpu=0"]).is_err(), "a conflict");
        assert!(env(&dirs, &["v.com/gpu=1"]).is_err(), "not there");
        assert!(env(&dirs, &["nonsense"]).is_err(), "not a name");
        let _ = std::fs::remove_dir_all(etc.parent().expect("top"));
    }

    #[test]
    fn yaml_and_broken_files() {
        let dirs = folders("yaml");
        let [etc, _] = dirs.as_slice() else {
            unreachable!()
        };
        std::fs::write(etc.join("broken.yaml"), "cdiVersion: [").expect("file");
        std::fs::write(
            etc.join("net.yaml"),
            "---\ncdiVersion: 0.5.0\nkind: v.com/net\ndevices:\n- name: eth\n  containerEdits:\n    \
             env:\n    - D=yaml\n    hooks: null\n    deviceNodes:\n    - path: /dev/null\n    mounts:\n    - \
             hostPath: /usr\n      containerPath: /opt/usr\n      options: [ro, rbind]\n",
        )
        .expect("file");
        assert_eq!(env(&dirs, &["v.com/net=eth"]).expect("found"), ["D=yaml"]);
        let err = env(&dirs, &["v.com/net=other"]).expect_err("not there");
        assert!(err.to_string().contains("broken.yaml"), "{err}");
        let _ = std::fs::remove_dir_all(etc.parent().expect("top"));
    }

    #[test]
    fn names_of_a_request() {
        let config = ContainerConfig {
            annotations: [
                ("cdi.k8s.io/x_y".to_owned(), "a.b/c=1, a.b/c=2".to_owned()),
                ("other".to_owned(), "a.b/c=9".to_owned()),
            ]
            .into(),
            cdi_devices: ["a.b/c=2", "a.b/c=3"]
                .map(|name| crate::proto::CdiDevice {
                    name: name.to_owned(),
                })
                .to_vec(),
            ..ContainerConfig::default()
        };
        assert_eq!(wanted(&config), ["a.b/c=1", "a.b/c=2", "a.b/c=3"]);
    }
}
