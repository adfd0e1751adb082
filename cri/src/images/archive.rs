//! Images in archives: tar files with an OCI image layout (image-layout.md of
//! the OCI image specification), and those of `docker save` (`manifest.json`),
//! compressed or not. What is written is both.

use std::io::{BufWriter, Read, Write};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::docker_archive::{self, DockerImage};
use super::pull::{Blobs, MAX_DOCUMENT, Platform};
use super::unpack::decompress;
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
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// What an archive holds; its blobs are in the store.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Digests of files by name, as in the archive.
    pub files: std::collections::HashMap<String, String>,
    /// Names that stand for other ones.
    pub links: std::collections::HashMap<String, String>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
}

impl Images {
    /// Takes all images of an archive; `name` is for one that names none.
    pub async fn import(
        &self,
        archive: impl Read + Send + 'static,
        name: &str,
    ) -> Result<Vec<ImageRecord>> {
        let _running = self.collecting.read().await;
        let (blobs, limit) = (self.blobs.clone(), self.config.max_layer_bytes);
        let work = move || {
            let contents = read(&blobs, archive, limit)?;
            manifests(&blobs, &contents)
        };
        let mut found = Vec::new();
        for (own, digest) in tokio::task::spawn_blocking(work).await?? {
            let name = whole_name(own.as_deref(), name)?;
            found.push(
                self.adopt(&super::reference::parse(&name)?, &digest)
                    .await?,
            );
        }
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    /// Writes these images, compressed as they were pulled.
    pub async fn export(
        &self,
        names: &[String],
        archive: impl Write + Send + 'static,
    ) -> Result<()> {
        let _running = self.collecting.read().await;
        let mut images = Vec::new();
        for name in names {
            let found = self.find(name);
            images.push((
                name.clone(),
                found.with_context(|| format!("no image {name:?}"))?,
            ));
        }
        let blobs = self.blobs.clone();
        tokio::task::spawn_blocking(move || write(&blobs, &images, archive)).await?
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

/// The image's own name; where that is a tag alone, or nothing, `given` says of
/// what.
fn whole_name(own: Option<&str>, given: &str) -> Result<String> {
    Ok(match (own, given) {
        (None, "") => bail!("the archive does not name its image; give it a name"),
        (None, given) => given.to_owned(),
        (Some(own), "") => own.to_owned(),
        (Some(tag), given) if !tag.contains(['/', ':']) => {
            let last = given.rsplit('/').next().unwrap_or(given);
            match last.contains([':', '@']) {
                true => given.to_owned(),
                false => format!("{given}:{tag}"),
            }
        }
        (Some(own), _) => own.to_owned(),
    })
}

/// Names and manifests of an archive's images.
fn manifests(blobs: &Blobs, contents: &Contents) -> Result<Vec<(Option<String>, String)>> {
    if let Some(text) = &contents.index {
        let index: Index = serde_json::from_slice(text).context("index.json is not valid")?;
        let entries = index.manifests.into_iter();
        let mut found: Vec<_> = entries
            .filter(|entry| entry.platform.as_ref().is_none_or(Platform::is_ours))
            .map(|mut entry| {
                let name = NAMES.iter().find_map(|key| entry.annotations.remove(*key));
                (name, entry.digest)
            })
            .collect();
        if found.is_empty() {
            bail!("the archive has no image for linux/amd64");
        }
        // `docker save` of an image with two names lists both in its own file.
        found.dedup();
        return Ok(found);
    }
    let text = contents.docker.as_ref().context(
        "neither an index.json nor a manifest.json: archives with an OCI image layout \
         and those of docker are read",
    )?;
    let images: Vec<DockerImage> =
        serde_json::from_slice(text).context("manifest.json is not valid")?;
    let mut found = Vec::new();
    for image in images {
        let digest = docker_archive::manifest(blobs, contents, &image)?;
        let names = image.repo_tags.unwrap_or_default();
        if names.is_empty() {
            found.push((None, digest.clone()));
        }
        found.extend(names.into_iter().map(|name| (Some(name), digest.clone())));
    }
    Ok(found)
}

/// A name of the archive without `./`; none where it leads out of it.
fn normal(base: &Path, name: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in base.components().chain(name.components()) {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Stores the files, which have to be what their names say.
fn read(blobs: &Blobs, input: impl Read, limit: u64) -> Result<Contents> {
    let mut archive = tar::Archive::new(decompress(input)?);
    let mut contents = Contents::default();
    // Raw: a hostile extended header is not taken into memory. Names of images'
    // files are short.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.context("not a tar archive")?;
        let kind = entry.header().entry_type();
        let path = entry.path()?.into_owned();
        let Some(name) = normal(Path::new(""), &path) else {
            continue;
        };
        if kind.is_symlink() || kind.is_hard_link() {
            let base = match kind.is_symlink() {
                true => path.parent().unwrap_or(Path::new("")),
                false => Path::new(""),
            };
            let target = entry.link_name()?.and_then(|to| normal(base, &to));
            contents.links.extend(target.map(|target| (name, target)));
        } else if kind.is_file() {
            let document = match name.as_str() {
                "index.json" => Some(&mut contents.index),
                "manifest.json" => Some(&mut contents.docker),
                _ => None,
            };
            if let Some(place) = document {
                let mut text = Vec::new();
                entry.by_ref().take(MAX_DOCUMENT).read_to_end(&mut text)?;
                *place = Some(text);
                continue;
            }
            let named = name.strip_prefix("blobs/sha256/");
            let named = named.map(|digits| format!("sha256:{digits}"));
            let stored = store(blobs, named.as_deref(), &mut entry, limit);
            let digest = stored.with_context(|| name.clone())?;
            contents.files.insert(name, digest);
        }
    }
    Ok(contents)
}

/// Stores a blob, of the digest `named` where it is known.
fn store(blobs: &Blobs, named: Option<&str>, from: &mut impl Read, limit: u64) -> Result<String> {
    if let Some(digest) = named
        && blobs.path(digest)?.exists()
    {
        return Ok(digest.to_owned());
    }
    let partial = blobs.temporary();
    let result = (|| {
        let mut file = std::fs::File::create_new(&partial)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 256 << 10];
        let mut bytes = 0u64;
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            bytes = bytes.saturating_add(u64::try_from(n)?);
            if bytes > limit {
                bail!("more than {limit} bytes (images.max_layer_bytes)");
            }
            let bytes = buffer.get(..n).unwrap_or_default();
            hash.update(bytes);
            file.write_all(bytes)?;
        }
        let found = format!("sha256:{}", crate::ids::hex(&hash.finalize()));
        if let Some(digest) = named
            && found != digest
        {
            bail!("the blob {digest} has the digest {found}");
        }
        file.sync_data()?;
        std::fs::rename(&partial, blobs.path(&found)?)?;
        Ok(found)
    })();
    if result.is_err() {
        // The error is told; collection takes what stays.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn write(blobs: &Blobs, images: &[(String, ImageRecord)], to: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, to));
    let mut manifests = Vec::new();
    let mut docker = Vec::new();
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
        docker.push(docker_archive::entry(image, &manifest)?);
        for digest in &image.blobs {
            let place = blobs.path(digest)?;
            // An index lists images of other machines, which are not here.
            let index = *digest != image.manifest
                && *digest != image.id
                && !docker_archive::layers(&manifest).any(|layer| layer == digest);
            if index || !done.insert(digest.clone()) {
                continue;
            }
            archive.append_path_with_name(&place, docker_archive::blob_name(digest)?)?;
        }
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let docker = serde_json::Value::Array(docker).to_string();
    let documents = [
        ("index.json", index.as_str()),
        ("manifest.json", docker.as_str()),
        ("oci-layout", LAYOUT),
    ];
    for (name, text) in documents {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(u64::try_from(text.len())?);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let name = |own, given| whole_name(own, given).ok();
        assert_eq!(name(None, ""), None);
        assert_eq!(name(Some("v1"), "a/b").as_deref(), Some("a/b:v1"));
        assert_eq!(name(Some("v1"), "h:5/b:2").as_deref(), Some("h:5/b:2"));
        assert_eq!(name(Some("h:5/b:2"), "x").as_deref(), Some("h:5/b:2"));
    }

    #[test]
    fn names_stay_in_the_archive() {
        let base = Path::new("abc");
        assert_eq!(normal(base, Path::new("../d/./e")).as_deref(), Some("d/e"));
        assert_eq!(normal(base, Path::new("../../e")), None);
        assert_eq!(normal(base, Path::new("/e")), None);
    }
}
