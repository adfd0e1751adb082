//! Fetching an image: manifest, configuration, layers side by side, each
//! unpacked as soon as it is there, then put on top of each other.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::layers::{chain_ids, digits};
use super::registry::{self, Endpoint};
use super::unpack::Limits;
use super::{ImageRecord, Images};
use crate::proto::AuthConfig;
use crate::store::atomic;
use crate::time;

const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Manifests and configurations are small; larger ones are an attack.
pub const MAX_DOCUMENT: u64 = 8 << 20;
/// Attempts without progress.
const TRIES: u32 = 4;
/// Bytes that count as progress.
const ENOUGH: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default)]
    pub manifests: Vec<IndexEntry>,
    pub config: Option<Descriptor>,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

impl Descriptor {
    /// Layers whose bytes are elsewhere, or not for this machine's eyes. The
    /// compression of all others is told by their first bytes.
    fn check_layer(&self) -> Result<()> {
        let kind = self.media_type.as_str();
        if kind.contains(".foreign.") || kind.contains(".nondistributable.") {
            bail!(
                "layer {} is foreign ({kind}): registries do not have it",
                self.digest
            );
        }
        if kind.ends_with("+encrypted") {
            bail!("layer {} is encrypted ({kind})", self.digest);
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    pub digest: String,
    pub platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    pub fn is_ours(&self) -> bool {
        let variant = matches!(self.variant.as_str(), "" | "v1");
        self.os == "linux" && self.architecture == "amd64" && variant
    }
}

/// The entry for this machine.
pub fn choose(index: &[IndexEntry]) -> Option<&IndexEntry> {
    index.iter().find(|entry| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(Platform::is_ours)
    })
}

/// How far a pull has come, in compressed bytes.
#[derive(Debug, Default)]
pub struct Progress {
    pub done: AtomicU64,
    pub total: AtomicU64,
}

/// One pull from one server.
struct Source<'a> {
    images: &'a Images,
    /// None when all content is here already.
    client: Option<Client>,
    progress: Arc<Progress>,
    image: Reference,
    auth: RegistryAuth,
}

impl Images {
    /// Pulls `name` and returns the image's record.
    pub async fn pull(&self, name: &str, auth: Option<&AuthConfig>) -> Result<ImageRecord> {
        self.pull_from_all(name, auth, Arc::default()).await
    }

    /// Makes an image of content that is here already.
    pub(super) async fn adopt(&self, name: &Reference, digest: &str) -> Result<ImageRecord> {
        let source = Source {
            images: self,
            client: None,
            progress: Arc::default(),
            image: name.clone_with_digest(digest.to_owned()),
            auth: RegistryAuth::Anonymous,
        };
        source.pull(name).await
    }

    pub(super) async fn pull_from_all(
        &self,
        name: &str,
        auth: Option<&AuthConfig>,
        progress: Arc<Progress>,
    ) -> Result<ImageRecord> {
        let image = super::reference::parse(name)?;
        let _running = self.collecting.read().await;
        let mut first = None;
        for endpoint in registry::endpoints(&self.config, image.registry())? {
            match self.pull_from(&endpoint, &image, auth, &progress).await {
                Ok(record) => return Ok(record),
                Err(err) => {
                    let err = err.context(format!("{} from {}", image.whole(), endpoint.host));
                    tracing::warn!("pull: {err:#}");
                    // The registry's own answer says more than a mirror's.
                    if !endpoint.mirror || first.is_none() {
                        first = Some(err);
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| anyhow::anyhow!("no server for {}", image.whole())))
    }

    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        image: &Reference,
        auth: Option<&AuthConfig>,
        progress: &Arc<Progress>,
    ) -> Result<ImageRecord> {
        let source = Source {
            images: self,
            client: Some(endpoint.client(&self.config)?),
            progress: Arc::clone(progress),
            image: endpoint.reference(image),
            // Credentials are for the registry and its mirrors alike.
            auth: registry::credentials(&self.config, image.registry(), auth)?,
        };
        source.pull(image).await
    }
}

impl Source<'_> {
    /// One pull at a time of the same from one server; what another server
    /// holds back does not hold up this one.
    async fn busy(&self, kind: &str, digest: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let host = self.image.resolve_registry();
        self.images.busy(&format!("{kind} {host} {digest}")).await
    }

    fn client(&self, what: &str) -> Result<&Client> {
        let client = self.client.as_ref();
        client.with_context(|| format!("{what} is not in the archive"))
    }

    async fn manifest(&self, image: &Reference) -> Result<(Vec<u8>, String)> {
        if let (None, Some(digest)) = (&self.client, image.digest()) {
            let path = self.images.blobs.path(digest)?;
            let bytes = std::fs::read(path).with_context(|| format!("manifest {digest}"))?;
            return Ok((bytes, digest.to_owned()));
        }
        let client = self.client("the manifest")?;
        let wait = Duration::from_secs(self.images.config.pull_progress_timeout_s.max(1));
        let mut tries = 0;
        loop {
            tries += 1;
            let answer =
                tokio::time::timeout(wait, client.pull_manifest_raw(image, &self.auth, MANIFESTS))
                    .await;
            match answer {
                Ok(Ok((bytes, digest))) => {
                    if bytes.len() as u64 > MAX_DOCUMENT {
                        bail!("the manifest is too large");
                    }
                    let own = format!("sha256:{}", crate::ids::hex(&Sha256::digest(&bytes)));
                    if digest.starts_with("sha256:") && digest != own {
                        bail!("the manifest does not have the digest {digest}");
                    }
                    return Ok((bytes.to_vec(), own));
                }
                Ok(Err(err)) if tries < TRIES && !is_final(&err) && !is_away(&err) => {
                    tracing::debug!("manifest of {image}: {err}");
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
                Ok(Err(err)) => return Err(err.into()),
                Err(_) => bail!("no answer for the manifest in {wait:?}"),
            }
        }
    }

    async fn pull(&self, name: &Reference) -> Result<ImageRecord> {
        let (mut bytes, target) = self.manifest(&self.image).await?;
        let mut digest = target.clone();
        let mut manifest: Manifest =
            serde_json::from_slice(&bytes).context("the manifest is not valid")?;
        if !manifest.manifests.is_empty() {
            self.images.blobs.put(&digest, &bytes)?;
            let entry =
                choose(&manifest.manifests).context("the image has no variant for linux/amd64")?;
            let image = self.image.clone_with_digest(entry.digest.clone());
            (bytes, digest) = self.manifest(&image).await?;
            if digest != entry.digest {
                bail!("the manifest does not have the digest {}", entry.digest);
            }
            manifest = serde_json::from_slice(&bytes).context("the manifest is not valid")?;
        }
        self.images.blobs.put(&digest, &bytes)?;
        if manifest.schema_version == 1 {
            bail!("the manifest is of docker's schema 1, which no longer is supported");
        }
        let config = manifest.config.context("not an image: no configuration")?;
        for layer in &manifest.layers {
            layer.check_layer()?;
        }
        if config.size > MAX_DOCUMENT {
            bail!("the image's configuration is too large");
        }
        self.blob(&config).await.context("the configuration")?;
        let image_config = super::read_config(&self.images.blobs, &config.digest)?;
        let diff_ids = image_config.rootfs.diff_ids.clone();
        if diff_ids.len() != manifest.layers.len() {
            bail!(
                "the manifest has {} layers, the configuration {}",
                manifest.layers.len(),
                diff_ids.len()
            );
        }
        let chain = chain_ids(&diff_ids);
        let missing = manifest.layers.iter().zip(&chain);
        let missing = missing.filter(|(_, chain_id)| !self.images.layers.has(chain_id));
        let total = missing.fold(config.size, |sum, (d, _)| sum.saturating_add(d.size));
        self.progress.total.store(total, Ordering::Relaxed);
        self.layers(&manifest.layers, &diff_ids, &chain).await?;
        let size = manifest
            .layers
            .iter()
            .chain([&config])
            .fold(bytes.len() as u64, |sum, d| sum.saturating_add(d.size));
        let mut blobs: Vec<String> = manifest.layers.into_iter().map(|l| l.digest).collect();
        blobs.extend([config.digest.clone(), digest.clone(), target.clone()]);
        let record = ImageRecord {
            id: config.digest,
            manifest: digest,
            tags: Vec::new(),
            digests: Vec::new(),
            layers: chain,
            blobs,
            size,
            pulled_at: time::now_ns(),
        };
        self.images.add(record, name, &target)
    }

    /// Fetches and unpacks side by side, then stacks in order.
    async fn layers(
        &self,
        descriptors: &[Descriptor],
        diff_ids: &[String],
        chain: &[String],
    ) -> Result<()> {
        let permits = Arc::new(Semaphore::new(self.images.config.parallel_layers.max(1)));
        let limits = Limits {
            bytes: self.images.config.max_layer_bytes,
            files: self.images.config.max_layer_files,
        };
        let mut work = FuturesOrdered::new();
        for ((descriptor, diff_id), chain_id) in descriptors.iter().zip(diff_ids).zip(chain) {
            let permits = Arc::clone(&permits);
            work.push_back(async move {
                // One pull of a layer at a time; the second finds it done.
                // The first layer's chain id is its digest, and its blob's too
                // where it is not compressed: the locks are told apart.
                let guard = self.busy("layer", chain_id).await;
                if self.images.layers.has(chain_id) {
                    return Ok(None);
                }
                let _permit = permits.acquire().await?;
                let path = self
                    .blob(descriptor)
                    .await
                    .with_context(|| format!("layer {}", descriptor.digest))?;
                let layer = self.images.layers.unpack(&path, limits).await?;
                if layer.report.diff_id != *diff_id {
                    bail!(
                        "layer {} unpacks to {}, not to {diff_id}",
                        descriptor.digest,
                        layer.report.diff_id
                    );
                }
                anyhow::Ok(Some((layer, guard)))
            });
        }
        let mut below = 0;
        while let Some(done) = work.next().await {
            if let (Some((layer, _guard)), Some(chain_id)) = (done?, chain.get(below)) {
                let lower = chain.get(..below).unwrap_or_default().to_vec();
                let layers = Arc::clone(&self.images.layers);
                let chain_id = chain_id.clone();
                tokio::task::spawn_blocking(move || layers.commit(layer, &chain_id, &lower))
                    .await??;
            }
            below += 1;
        }
        Ok(())
    }

    /// Fetches a blob unless it is there; resumes after errors.
    async fn blob(&self, descriptor: &Descriptor) -> Result<PathBuf> {
        let _guard = self.busy("blob", &descriptor.digest).await;
        let place = self.images.blobs.path(&descriptor.digest)?;
        if place.exists() {
            return Ok(place);
        }
        let host = self.image.resolve_registry();
        let partial = self.images.blobs.partial(&descriptor.digest, host)?;
        let mut tries = 0;
        loop {
            let before = self.progress.done.load(Ordering::Relaxed);
            match self.fetch(descriptor, &partial).await {
                Ok(()) => break,
                Err(Failure::Final(err)) => return Err(err),
                Err(Failure::Again(err)) => {
                    let now = self.progress.done.load(Ordering::Relaxed);
                    if now.saturating_sub(before) >= ENOUGH {
                        tries = 0;
                    }
                    tries += 1;
                    if tries >= TRIES {
                        return Err(err);
                    }
                    tracing::debug!("blob {}: {err:#}", descriptor.digest);
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
            }
        }
        let (from, to) = (partial.clone(), place.clone());
        tokio::task::spawn_blocking(move || {
            std::fs::File::open(&from)?.sync_data()?;
            std::fs::rename(&from, &to)
        })
        .await??;
        Ok(place)
    }

    /// One attempt; what it has got stays in `partial`.
    async fn fetch(&self, descriptor: &Descriptor, partial: &PathBuf) -> Result<(), Failure> {
        let client = self.client(&descriptor.digest).map_err(Failure::Final)?;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .read(true)
            .open(partial)?;
        let mut have = file.metadata()?.len();
        if have >= descriptor.size {
            file.set_len(0)?;
            have = 0;
        }
        let mut hash = Sha256::new();
        if have > 0 {
            let mut old = std::fs::File::open(partial)?;
            hash = tokio::task::spawn_blocking(move || {
                std::io::copy(&mut old, &mut HashWriter(&mut hash)).map(|_| hash)
            })
            .await??;
        }
        let resumed = have > 0;
        // Bytes that are not the blob's go. If they began with an earlier
        // attempt the next one begins anew.
        let wrong = |file: &std::fs::File, message: String| {
            drop(file.set_len(0));
            match resumed {
                true => Failure::Again(anyhow::anyhow!(message)),
                false => Failure::Final(anyhow::anyhow!(message)),
            }
        };
        let wait = Duration::from_secs(self.images.config.pull_progress_timeout_s.max(1));
        let layer = OciDescriptor {
            digest: descriptor.digest.clone(),
            size: i64::try_from(descriptor.size)?,
            ..OciDescriptor::default()
        };
        let answer = async {
            if !resumed {
                let answer = client.pull_blob_stream(&self.image, &layer).await?;
                return Ok(BlobResponse::Full(answer));
            }
            let answer = client.pull_blob_stream_partial(&self.image, &layer, have, None);
            answer.await
        };
        let answer = match tokio::time::timeout(wait, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(err)) if is_final(&err) => return Err(wrong(&file, err.to_string())),
            Ok(Err(err)) => return Err(err.into()),
            Err(_) => return Err(Failure::Final(stall(wait))),
        };
        let mut stream = match answer {
            BlobResponse::Partial(stream) => stream.stream,
            BlobResponse::Full(stream) => {
                // Also of a server that knows no ranges.
                file.set_len(0)?;
                hash = Sha256::new();
                have = 0;
                stream.stream
            }
        };
        let first = have;
        loop {
            let chunk = match tokio::time::timeout(wait, stream.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => break,
                // The library compares digests as well, at the end.
                Ok(Some(Err(_))) if have == descriptor.size => break,
                Ok(Some(Err(err))) => return Err(err.into()),
                Err(_) if have == first => return Err(Failure::Final(stall(wait))),
                Err(_) => return Err(Failure::Again(stall(wait))),
            };
            let counted = chunk.len() as u64;
            have = have.saturating_add(counted);
            self.progress.done.fetch_add(counted, Ordering::Relaxed);
            if have > descriptor.size {
                let message = "more bytes than the manifest says".to_owned();
                return Err(wrong(&file, message));
            }
            // Hashing and the page cache are quicker than the network; the
            // runtime has more than one thread.
            hash.update(&chunk);
            file.write_all(&chunk)?;
        }
        if have != descriptor.size {
            let message = format!("{have} of {} bytes", descriptor.size);
            return Err(Failure::Again(anyhow::anyhow!(message)));
        }
        let digest = format!("sha256:{}", crate::ids::hex(&hash.finalize()));
        if digest != descriptor.digest {
            return Err(wrong(&file, format!("the bytes have the digest {digest}")));
        }
        Ok(())
    }
}

/// Why an attempt to fetch a blob came to nothing.
enum Failure {
    /// The network; another attempt goes on where this one ended.
    Again(anyhow::Error),
    /// The server's last word.
    Final(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(err: E) -> Self {
        Self::Again(err.into())
    }
}

fn stall(wait: Duration) -> anyhow::Error {
    anyhow::anyhow!("no byte in {wait:?} (images.pull_progress_timeout_s)")
}

/// Refusals; a server in trouble (5xx) or with too much to do may be asked again.
fn is_final(err: &OciDistributionError) -> bool {
    match err {
        OciDistributionError::ServerError { code, .. } => {
            (400..500).contains(code) && !matches!(code, 408 | 425 | 429)
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let mut errors = envelope.errors.iter();
            !errors.any(|err| err.code == OciErrorCode::Toomanyrequests)
        }
        OciDistributionError::RequestError(err) => err.is_builder() || err.is_redirect(),
        OciDistributionError::IoError(_) => false,
        _ => true,
    }
}

/// Nobody is there; another mirror may be.
fn is_away(err: &OciDistributionError) -> bool {
    matches!(err, OciDistributionError::RequestError(err) if err.is_connect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `blobs/sha256/DIGITS`, and `ingest/DIGITS-SERVER` while a download is under way.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub fn open(root: &std::path::Path) -> Result<Self> {
        let blobs = Self {
            dir: root.join("blobs/sha256"),
            ingest: root.join("ingest"),
        };
        std::fs::create_dir_all(&blobs.dir)?;
        std::fs::create_dir_all(&blobs.ingest)?;
        Ok(blobs)
    }

    pub fn path(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.dir.join(digits(digest)?))
    }

    /// A place for a blob whose digest is not known yet.
    pub fn temporary(&self) -> PathBuf {
        self.ingest.join(crate::ids::random())
    }

    /// Where the bytes of one server are until all are there.
    fn partial(&self, digest: &str, host: &str) -> Result<PathBuf> {
        let host = crate::ids::hex(&Sha256::digest(host));
        let name = format!("{}-{}", digits(digest)?, crate::ids::short(&host));
        Ok(self.ingest.join(name))
    }

    pub fn put(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(digest)?;
        if !path.exists() {
            atomic::write(&path, bytes)?;
        }
        Ok(())
    }

    /// Removes what `keep` does not name, and abandoned downloads.
    pub fn retain(&self, keep: &std::collections::HashSet<String>) -> Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            if !keep.contains(&digest) {
                std::fs::remove_file(entry.path())?;
            }
        }
        for entry in std::fs::read_dir(&self.ingest)? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > Duration::from_secs(24 * 3600) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|e| e.metadata().ok())
            .fold(0, |sum: u64, m| sum.saturating_add(m.len()))
    }
}
