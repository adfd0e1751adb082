//! What the daemon knows of pods and containers: records in memory, each with
//! a JSON file below `--root` that is written before the change is believed.
//!
//! Locks: a record's mutex is held for a change and its write, never across an
//! await; `operation` (one per object) serialises RPCs on it and is taken pod
//! before container.

pub mod atomic;
pub mod container;
pub mod pod;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;

pub use container::{Container, ContainerRecord, ContainerStage};
pub use pod::{Pod, PodRecord, PodStage};

#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pods: Mutex<HashMap<String, Arc<Pod>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// Name to id; a name is taken from the beginning of its creation.
    names: Mutex<HashMap<String, String>>,
}

/// A name that is given back unless the object gets into the store.
#[derive(Debug)]
pub struct NameGuard<'a> {
    store: &'a Store,
    name: Option<String>,
}

impl NameGuard<'_> {
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for NameGuard<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.store.names.lock().remove(name);
        }
    }
}

impl Store {
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self {
            root: root.to_owned(),
            pods: Mutex::default(),
            containers: Mutex::default(),
            names: Mutex::default(),
        };
        for dir in ["pods", "containers"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("{} can't be made", dir.display()))?;
        }
        Ok(store)
    }

    pub fn pod_dir(&self, id: &str) -> PathBuf {
        self.root.join("pods").join(id)
    }

    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Reads all records. A file that is not valid is reported, its object is
    /// left alone.
    pub fn load(&self) -> Result<()> {
        for dir in subdirectories(&self.root.join("pods"))? {
            match atomic::read_json::<PodRecord>(&dir.join("pod.json")) {
                Ok(Some(record)) => {
                    self.names.lock().insert(record.name(), record.id.clone());
                    let pod = Pod::new(record, dir);
                    self.pods.lock().insert(pod.id.clone(), Arc::new(pod));
                }
                // The daemon died before the first write.
                Ok(None) => drop(std::fs::remove_dir_all(&dir)),
                Err(err) => tracing::error!("pod record: {err}"),
            }
        }
        for dir in subdirectories(&self.root.join("containers"))? {
            match atomic::read_json::<ContainerRecord>(&dir.join("container.json")) {
                Ok(Some(record)) => {
                    let pod_name = self.pod(&record.pod).map(|pod| pod.record().name());
                    let name = record.name(&pod_name.unwrap_or_default());
                    self.names.lock().insert(name, record.id.clone());
                    let container = Container::new(record, dir);
                    self.containers
                        .lock()
                        .insert(container.id.clone(), Arc::new(container));
                }
                Ok(None) => drop(std::fs::remove_dir_all(&dir)),
                Err(err) => tracing::error!("container record: {err}"),
            }
        }
        Ok(())
    }

    /// Takes a name; the id of its holder when it is taken.
    pub fn reserve(&self, name: &str, id: &str) -> Result<NameGuard<'_>, String> {
        let mut names = self.names.lock();
        if let Some(holder) = names.get(name) {
            return Err(holder.clone());
        }
        names.insert(name.to_owned(), id.to_owned());
        Ok(NameGuard {
            store: self,
            name: Some(name.to_owned()),
        })
    }

    pub fn add_pod(&self, record: PodRecord) -> Result<Arc<Pod>> {
        let dir = self.pod_dir(&record.id);
        std::fs::create_dir_all(&dir)?;
        let pod = Arc::new(Pod::new(record, dir));
        pod.update(|_| ())?;
        self.pods.lock().insert(pod.id.clone(), Arc::clone(&pod));
        Ok(pod)
    }

    pub fn add_container(&self, record: ContainerRecord) -> Result<Arc<Container>> {
        let dir = self.container_dir(&record.id);
        std::fs::create_dir_all(&dir)?;
        let container = Arc::new(Container::new(record, dir));
        container.update(|_| ())?;
        self.containers
            .lock()
            .insert(container.id.clone(), Arc::clone(&container));
        Ok(container)
    }

    /// By id or unambiguous beginning of it.
    pub fn pod(&self, id: &str) -> Option<Arc<Pod>> {
        by_prefix(&self.pods.lock(), id)
    }

    pub fn container(&self, id: &str) -> Option<Arc<Container>> {
        by_prefix(&self.containers.lock(), id)
    }

    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let mut all: Vec<_> = self.pods.lock().values().cloned().collect();
        all.sort_by_cached_key(|pod| pod.record().created_at);
        all
    }

    pub fn containers(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.containers.lock().values().cloned().collect();
        all.sort_by_cached_key(|c| c.record().created_at);
        all
    }

    pub fn containers_of(&self, pod: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers();
        all.retain(|c| c.pod == pod);
        all
    }

    /// The record goes first: what is left of the folder after a crash has none
    /// and is removed at the next start.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        let dir = self.pod_dir(&pod.id);
        remove(&dir.join("pod.json"))?;
        let _ = std::fs::remove_dir_all(&dir);
        self.pods.lock().remove(&pod.id);
        self.names.lock().retain(|_, id| *id != pod.id);
        Ok(())
    }

    pub fn remove_container(&self, container: &Container) -> Result<()> {
        let dir = self.container_dir(&container.id);
        remove(&dir.join("container.json"))?;
        std::fs::remove_dir_all(&dir).or_else(|err| match err.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(err),
        })?;
        self.containers.lock().remove(&container.id);
        self.names.lock().retain(|_, id| *id != container.id);
        Ok(())
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn by_prefix<T>(all: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = all.get(id) {
        return Some(Arc::clone(found));
    }
    if id.is_empty() {
        return None;
    }
    let mut matching = all.iter().filter(|(key, _)| key.starts_with(id));
    let (_, first) = matching.next()?;
    matching.next().is_none().then(|| Arc::clone(first))
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
