//! Images in archives: tar files with an OCI image layout
//! (image-layout.md of the OCI image specification).

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::pull::{Blobs, MAX_DOCUMENT};
use super::{ImageRecord, Images};
use crate::proto::AuthConfig;

/// Names of an image in `index.json`: containerd's whole one, else the OCI's.
const NAMES: &[&str] = &[
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Images {
    /// Takes all images of an archive; `name` is for one that names none.
    pub async fn import(&self, path: &Path, name: &str) -> Result<Vec<ImageRecord>> {
        let _running = self.collecting.read().await;
        let index = {
            let (blobs, path) = (self.blobs.clone(), path.to_owned());
            tokio::task::spawn_blocking(move || read(&blobs, &path)).await??
        };
        let mut found = Vec::new();
        for entry in index.manifests {
            let own = NAMES.iter().find_map(|key| entry.annotations.get(*key));
            let name = match own.map(String::as_str).unwrap_or(name) {
                "" => bail!("the archive does not name its image; give it a name"),
                name => super::parse_reference(name)?,
            };
            found.push(self.adopt(&name, &entry.digest).await?);
        }
        Ok(found)
    }

    /// Writes these images, compressed as they were pulled.
    pub async fn export(&self, names: &[String], path: &Path) -> Result<()> {
        let _running = self.collecting.read().await;
        let mut images = Vec::new();
        for name in names {
            let found = self.find(name);
            images.push((
                name.clone(),
                found.with_context(|| format!("no image {name:?}"))?,
            ));
        }
        let (blobs, path) = (self.blobs.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || write(&blobs, &images, &path)).await?
    }

    /// A pull with progress, for a person.
    pub async fn pull_with(
        &self,
        name: &str,
        auth: Option<&AuthConfig>,
        progress: std::sync::Arc<super::pull::Progress>,
    ) -> Result<ImageRecord> {
        self.pull_from_all(name, auth, progress).await
    }
}

/// Stores the blobs, which have to be what their names say, and returns the
/// index.
fn read(blobs: &Blobs, path: &Path) -> Result<Index> {
    let file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut index = None;
    for entry in archive.entries()? {
        let mut entry =
            entry.with_context(|| format!("{} is not a tar archive", path.display()))?;
        let name = entry.path()?.into_owned();
        if let Ok(digits) = name.strip_prefix("blobs/sha256") {
            if entry.header().entry_type().is_file() {
                let digest = format!("sha256:{}", digits.display());
                store(blobs, &digest, &mut entry)?;
            }
        } else if name == Path::new("index.json") {
            let mut text = Vec::new();
            entry.by_ref().take(MAX_DOCUMENT).read_to_end(&mut text)?;
            index = Some(serde_json::from_slice(&text).context("index.json is not valid")?);
        }
    }
    index.context("no index.json: only archives with an OCI image layout are read")
}

fn store(blobs: &Blobs, digest: &str, from: &mut impl Read) -> Result<()> {
    let place = blobs.path(digest)?;
    if place.exists() {
        return Ok(());
    }
    let partial = place.with_extension(format!("import-{}", crate::ids::random()));
    let result = (|| {
        let mut file = File::create_new(&partial)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            let bytes = buffer.get(..n).unwrap_or_default();
            hash.update(bytes);
            file.write_all(bytes)?;
        }
        let found = format!("sha256:{}", crate::ids::hex(&hash.finalize()));
        if found != digest {
            bail!("the blob {digest} has the digest {found}");
        }
        file.sync_data()?;
        Ok(std::fs::rename(&partial, &place)?)
    })();
    if result.is_err() {
        // The error is told; collection takes what stays.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn write(blobs: &Blobs, images: &[(String, ImageRecord)], path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("{} can't be made", path.display()))?;
    let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
    let mut manifests = Vec::new();
    let mut done = std::collections::HashSet::new();
    for (name, image) in images {
        let size = std::fs::metadata(blobs.path(&image.manifest)?)?.len();
        let name = image.tags.first().unwrap_or(name);
        let text = std::fs::read(blobs.path(&image.manifest)?)?;
        let manifest: serde_json::Value = serde_json::from_slice(&text)?;
        let media_type = manifest
            .get("mediaType")
            .and_then(|v| v.as_str())
            .unwrap_or("application/vnd.oci.image.manifest.v1+json");
        manifests.push(json!({
            "mediaType": media_type,
            "digest": image.manifest,
            "size": size,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(':').next(),
            },
        }));
        for digest in &image.blobs {
            let place = blobs.path(digest)?;
            // An index lists images of other machines, which are not here.
            let index =
                *digest != image.manifest && *digest != image.id && !layer(&manifest, digest);
            if index || !done.insert(digest.clone()) {
                continue;
            }
            let digits = super::layers::digits(digest)?;
            archive.append_path_with_name(&place, format!("blobs/sha256/{digits}"))?;
        }
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    for (name, text) in [("index.json", index.as_str()), ("oci-layout", LAYOUT)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(u64::try_from(text.len())?);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.into_inner()?.sync_all()?;
    Ok(())
}

fn layer(manifest: &serde_json::Value, digest: &str) -> bool {
    let layers = manifest.get("layers").and_then(|l| l.as_array());
    layers
        .into_iter()
        .flatten()
        .any(|l| l.get("digest").and_then(|d| d.as_str()) == Some(digest))
}
