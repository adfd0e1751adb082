//! Images: records, content, unpacked layers.
//!
//! ```text
//! ROOT/images/ID.json     one record per image (its configuration's digest)
//! ROOT/blobs/sha256/…     manifests, configurations, compressed layers
//! ROOT/layers/CHAIN/fs    unpacked layers
//! ROOT/ingest/…           downloads under way, resumed after a crash
//! ```

mod archive;
mod confine;
mod docker_archive;
pub mod idmap;
pub mod layers;
pub mod pull;
pub mod reference;
mod registry;
pub mod unpack;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use oci_client::Reference;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::store::atomic;
use layers::Layers;
use pull::Blobs;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:` of the configuration.
    pub id: String,
    pub manifest: String,
    /// `registry/repository:tag`.
    pub tags: Vec<String>,
    /// `registry/repository@sha256:…`.
    pub digests: Vec<String>,
    /// Chain ids, lowest first.
    pub layers: Vec<String>,
    /// Content it keeps from collection.
    pub blobs: Vec<String>,
    /// Compressed bytes.
    pub size: u64,
    pub pulled_at: i64,
}

/// The part of an image configuration that matters here. Docker's has absent
/// and null fields.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ConfigFile {
    #[serde(default)]
    pub config: Option<ProcessDefaults>,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessDefaults {
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub env: Option<Vec<String>>,
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    #[serde(default)]
    pub working_dir: Option<String>,
    #[serde(default)]
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    pub stop_signal: Option<String>,
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug)]
pub struct Images {
    pub config: ImageConfig,
    dir: PathBuf,
    records: Mutex<HashMap<String, ImageRecord>>,
    blobs: Blobs,
    pub layers: Arc<Layers>,
    /// Held for reading by pulls, for writing by the collection.
    collecting: tokio::sync::RwLock<()>,
    busy: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

fn read_config(blobs: &Blobs, id: &str) -> Result<ConfigFile> {
    let path = blobs.path(id)?;
    let text = std::fs::read(&path).with_context(|| format!("configuration {id}"))?;
    serde_json::from_slice(&text).with_context(|| format!("image configuration {id}"))
}

impl Images {
    pub fn open(root: &Path, config: ImageConfig) -> Result<Self> {
        let dir = root.join("images");
        std::fs::create_dir_all(&dir)?;
        let mut records = HashMap::new();
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                // A write that a crash cut short.
                let _ = std::fs::remove_file(&path);
                continue;
            }
            match atomic::read_json::<ImageRecord>(&path) {
                Ok(Some(record)) => drop(records.insert(record.id.clone(), record)),
                Ok(None) => {}
                Err(err) => tracing::error!("image record: {err}"),
            }
        }
        Ok(Self {
            config,
            dir,
            records: Mutex::new(records),
            blobs: Blobs::open(root)?,
            layers: Arc::new(Layers::open(root)?),
            collecting: tokio::sync::RwLock::new(()),
            busy: Mutex::default(),
        })
    }

    /// One task at a time per key.
    async fn busy(&self, key: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.busy.lock();
            all.retain(|_, lock| lock.strong_count() > 0);
            match all.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(key.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    /// While held nothing is collected.
    pub async fn hold(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.collecting.read().await
    }

    fn file(&self, id: &str) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{}.json", layers::digits(id)?)))
    }

    fn save(&self, record: &ImageRecord) -> Result<()> {
        atomic::write_json(&self.file(&record.id)?, record)?;
        Ok(())
    }

    /// Adds or updates an image that was asked for as `name` and found with
    /// the digest `target` (of the index where there is one).
    fn add(&self, mut record: ImageRecord, name: &Reference, target: &str) -> Result<ImageRecord> {
        let repository = format!("{}/{}", name.registry(), name.repository());
        let mut records = self.records.lock();
        if let Some(known) = records.get(&record.id) {
            record.tags.clone_from(&known.tags);
            record.digests.clone_from(&known.digests);
            for blob in &known.blobs {
                if !record.blobs.contains(blob) {
                    record.blobs.push(blob.clone());
                }
            }
        }
        let digest = format!("{repository}@{target}");
        if !record.digests.contains(&digest) {
            record.digests.push(digest);
        }
        if let (Some(tag), None) = (name.tag(), name.digest()) {
            let tag = format!("{repository}:{tag}");
            // A tag names one image.
            for other in records.values_mut() {
                if other.id != record.id && other.tags.contains(&tag) {
                    other.tags.retain(|t| *t != tag);
                    self.save(other)?;
                }
            }
            if !record.tags.contains(&tag) {
                record.tags.push(tag);
            }
        }
        self.save(&record)?;
        records.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    pub fn all(&self) -> Vec<ImageRecord> {
        let mut all: Vec<_> = self.records.lock().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// By id (with or without `sha256:`, also its beginning), tag or digest.
    pub fn find(&self, name: &str) -> Option<ImageRecord> {
        let records = self.records.lock();
        if let Some(found) = records.get(name) {
            return Some(found.clone());
        }
        if name.len() >= 4 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            let prefix = format!("sha256:{name}");
            let mut matching = records.values().filter(|r| r.id.starts_with(&prefix));
            if let (Some(found), None) = (matching.next(), matching.next()) {
                return Some(found.clone());
            }
        }
        let reference = reference::parse(name).ok()?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        if let Some(digest) = reference.digest() {
            let whole = format!("{repository}@{digest}");
            return records
                .values()
                .find(|r| r.digests.contains(&whole))
                .cloned();
        }
        let whole = format!("{repository}:{}", reference.tag().unwrap_or("latest"));
        records.values().find(|r| r.tags.contains(&whole)).cloned()
    }

    pub fn defaults(&self, image: &ImageRecord) -> Result<ConfigFile> {
        read_config(&self.blobs, &image.id)
    }

    pub fn is_pinned(&self, image: &ImageRecord) -> bool {
        self.config.pinned.iter().any(|name| {
            reference::parse(name).is_ok_and(|r| {
                let whole = r.whole();
                image.tags.contains(&whole) || image.digests.contains(&whole)
            })
        })
    }

    /// Forgets the image; `used` are the layers of containers.
    pub async fn remove(&self, name: &str, used: HashSet<String>) -> Result<()> {
        let Some(record) = self.find(name) else {
            return Ok(());
        };
        {
            let mut records = self.records.lock();
            match std::fs::remove_file(self.file(&record.id)?) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err.into()),
                _ => {}
            }
            records.remove(&record.id);
        }
        self.collect(used).await
    }

    /// Removes content and layers that no image and no container needs. While
    /// a pull is under way nothing is removed; the next collection does it.
    pub async fn collect(&self, used: HashSet<String>) -> Result<()> {
        let Ok(_alone) = self.collecting.try_write() else {
            return Ok(());
        };
        let mut keep_blobs = HashSet::new();
        let mut keep_layers = used;
        for record in self.all() {
            keep_blobs.extend(record.blobs);
            keep_layers.extend(record.layers);
        }
        let layers = Arc::clone(&self.layers);
        self.blobs.retain(&keep_blobs)?;
        tokio::task::spawn_blocking(move || {
            for layer in layers.all() {
                if !keep_layers.contains(&layer.chain_id) {
                    layers.remove(&layer.chain_id)?;
                }
            }
            anyhow::Ok(())
        })
        .await?
    }

    /// Bytes and files of all content and layers.
    pub fn usage(&self) -> (u64, u64) {
        let layers = self.layers.all();
        layers.iter().fold(
            (self.blobs.bytes(), layers.len() as u64),
            |(bytes, files), layer| {
                (
                    bytes.saturating_add(layer.bytes),
                    files.saturating_add(layer.files),
                )
            },
        )
    }
}
