//! Archives of `docker save`: `manifest.json` names, for each image, the files
//! of its configuration and its layers (Docker Image Specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format").

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ImageRecord;
use super::archive::Contents;
use super::pull::Blobs;

/// An entry of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Older versions write a layer that occurs twice as a symlink.
fn find<'a>(contents: &'a Contents, name: &str) -> Result<&'a str> {
    let name = name.trim_start_matches("./");
    let target = contents.links.get(name).map_or(name, String::as_str);
    let digest = contents.files.get(target);
    let digest = digest.with_context(|| format!("the archive lacks {name:?}"))?;
    Ok(digest)
}

fn descriptor(blobs: &Blobs, digest: &str, media_type: &str) -> Result<Value> {
    let size = std::fs::metadata(blobs.path(digest)?)?.len();
    Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
}

/// The layer's media type, by its first bytes.
fn layer_type(blobs: &Blobs, digest: &str) -> Result<&'static str> {
    let mut magic = Vec::new();
    let file = File::open(blobs.path(digest)?)?;
    file.take(4).read_to_end(&mut magic)?;
    Ok(if magic.starts_with(&[0x1f, 0x8b]) {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    } else if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        "application/vnd.oci.image.layer.v1.tar+zstd"
    } else {
        "application/vnd.oci.image.layer.v1.tar"
    })
}

/// Makes and stores the manifest that such an image does not have; returns its
/// digest.
pub(super) fn manifest(blobs: &Blobs, contents: &Contents, image: &DockerImage) -> Result<String> {
    let mut layers = Vec::new();
    for name in &image.layers {
        let digest = find(contents, name)?;
        layers.push(descriptor(blobs, digest, layer_type(blobs, digest)?)?);
    }
    let config = find(contents, &image.config)?;
    let text = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(blobs, config, "application/vnd.oci.image.config.v1+json")?,
        "layers": layers,
    }))?;
    let digest = format!("sha256:{}", crate::ids::hex(&Sha256::digest(&text)));
    blobs.put(&digest, &text)?;
    Ok(digest)
}

/// Digests of a manifest's layers.
pub(super) fn layers(manifest: &Value) -> impl Iterator<Item = &str> {
    let layers = manifest.get("layers").and_then(Value::as_array);
    let layers = layers.into_iter().flatten();
    layers.filter_map(|layer| layer.get("digest").and_then(Value::as_str))
}

/// Where a blob is in the archives that are written.
pub(super) fn blob_name(digest: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", super::layers::digits(digest)?))
}

/// The entry that lets docker read such an archive.
pub(super) fn entry(image: &ImageRecord, manifest: &Value) -> Result<Value> {
    let layers: Vec<String> = layers(manifest).map(blob_name).collect::<Result<_>>()?;
    if layers.len() != image.layers.len() {
        bail!(
            "the manifest of {} has other layers than the image",
            image.id
        );
    }
    let entry = DockerImage {
        config: blob_name(&image.id)?,
        repo_tags: Some(image.tags.clone()),
        layers,
    };
    Ok(serde_json::to_value(entry)?)
}
