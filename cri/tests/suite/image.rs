//! Images made in the test and pushed to the local registry.

use std::io::Write;

use anyhow::Result;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer under construction.
pub struct Layer {
    builder: tar::Builder<Vec<u8>>,
    pub compression: Compression,
    media_type: Option<&'static str>,
}

/// A layer as registries have it.
#[derive(Clone, Debug)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub diff_id: String,
    pub media_type: String,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
            compression: Compression::Gzip,
            media_type: None,
        }
    }
}

impl Layer {
    pub fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header
    }

    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.builder
            .append_data(&mut header, path, std::io::empty())
            .expect("tar");
        self
    }

    pub fn file(mut self, path: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, data.len() as u64);
        self.builder
            .append_data(&mut header, path, data)
            .expect("tar");
        self
    }

    pub fn owned(mut self, path: &str, mode: u32, uid: u64, data: &[u8]) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, data.len() as u64);
        header.set_uid(uid);
        self.builder
            .append_data(&mut header, path, data)
            .expect("tar");
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.builder
            .append_link(&mut header, path, target)
            .expect("tar");
        self
    }

    /// Its mode is that of the target, as archivers write it.
    pub fn hard_link(mut self, path: &str, target: &str, mode: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Link, mode, 0);
        self.builder
            .append_link(&mut header, path, target)
            .expect("tar");
        self
    }

    /// A name as it stands, which the library would not write.
    pub fn raw_file(mut self, path: &[u8], data: &[u8]) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, 0o644, data.len() as u64);
        if let Some(name) = header.as_mut_bytes().get_mut(..path.len()) {
            name.copy_from_slice(path);
        }
        header.set_cksum();
        self.builder.append(&header, data).expect("tar");
        self
    }

    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Says it is of this type.
    pub fn typed(mut self, media_type: &'static str) -> Self {
        self.media_type = Some(media_type);
        self
    }

    pub fn finish(self) -> Result<Blob> {
        let plain = self.builder.into_inner()?;
        let diff_id = digest(&plain);
        let (bytes, media_type) = match self.compression {
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain)?;
                let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
                (encoder.finish()?, docker)
            }
            Compression::Zstd => (
                zstd::encode_all(plain.as_slice(), 1)?,
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ),
            Compression::None => (plain, "application/vnd.oci.image.layer.v1.tar"),
        };
        Ok(Blob {
            bytes,
            diff_id,
            media_type: self.media_type.unwrap_or(media_type).to_owned(),
        })
    }
}

/// An image's configuration, for these layers.
pub fn configuration(diff_ids: &[String], config: &Value) -> Vec<u8> {
    let value = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    value.to_string().into_bytes()
}

/// A layer with busybox and links for its applets.
pub fn busybox() -> Layer {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|p| std::fs::read(p).ok())
        .expect("busybox-static is installed");
    let mut layer = Layer::default()
        .dir("bin", 0o755)
        .dir("etc", 0o755)
        .dir("tmp", 0o1777)
        .dir("root", 0o700)
        .file("bin/busybox", 0o755, &program)
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/sh\n",
        )
        .file("etc/group", 0o644, b"root:x:0:\nweb:x:34:\nlog:x:4:web\n");
    for applet in [
        "sh", "cat", "echo", "sleep", "ls", "id", "true", "false", "kill", "ps", "grep", "head",
        "dd", "nc", "wget", "httpd", "mount", "stat", "touch", "mkdir", "rm", "env", "pwd", "tail",
        "seq", "hostname", "stty", "wc", "ip", "date", "chmod", "ln", "tty", "printf", "readlink",
        "ping", "chroot",
    ] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
}

fn client() -> Client {
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

/// Pushes an index of pushed manifests: (digest, architecture).
pub async fn push_index(registry: &str, name: &str, entries: &[(&str, &str)]) -> Result<String> {
    let reference: Reference = format!("{registry}/{name}").parse()?;
    let client = client();
    let auth = RegistryAuth::Anonymous;
    client
        .auth(&reference, &auth, RegistryOperation::Push)
        .await?;
    let mut manifests = Vec::new();
    for (digest, architecture) in entries {
        let place = reference.clone_with_digest((*digest).to_owned());
        let (bytes, _) = client.pull_manifest_raw(&place, &auth, MANIFEST).await?;
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let text = serde_json::to_vec(&index)?;
    client
        .push_manifest_raw(
            &reference,
            text.clone(),
            "application/vnd.oci.image.index.v1+json".parse()?,
        )
        .await?;
    Ok(digest(&text))
}

const MANIFEST: &[&str] = &["application/vnd.oci.image.manifest.v1+json"];

/// Pushes an image; returns the manifest's digest.
pub async fn push(registry: &str, name: &str, layers: Vec<Layer>, config: Value) -> Result<String> {
    let reference: Reference = format!("{registry}/{name}").parse()?;
    let client = client();
    let auth = RegistryAuth::Anonymous;
    client
        .auth(&reference, &auth, RegistryOperation::Push)
        .await?;
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let blob = layer.finish()?;
        let descriptor = OciDescriptor {
            media_type: blob.media_type,
            digest: digest(&blob.bytes),
            size: i64::try_from(blob.bytes.len())?,
            ..OciDescriptor::default()
        };
        client
            .push_blob(&reference, blob.bytes, &descriptor.digest)
            .await?;
        diff_ids.push(blob.diff_id);
        descriptors.push(descriptor);
    }
    let config = configuration(&diff_ids, &config);
    let config_descriptor = OciDescriptor {
        media_type: "application/vnd.docker.container.image.v1+json".to_owned(),
        digest: digest(&config),
        size: i64::try_from(config.len())?,
        ..OciDescriptor::default()
    };
    client
        .push_blob(&reference, config, &config_descriptor.digest)
        .await?;
    let manifest = OciImageManifest {
        media_type: Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        config: config_descriptor,
        layers: descriptors,
        ..OciImageManifest::default()
    };
    let text = serde_json::to_vec(&manifest)?;
    client
        .push_manifest_raw(
            &reference,
            text.clone(),
            "application/vnd.oci.image.manifest.v1+json".parse()?,
        )
        .await?;
    Ok(digest(&text))
}
