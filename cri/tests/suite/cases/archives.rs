//! `runsc-cri image import` and `export`.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Case;
use crate::case;
use crate::env::{BUSYBOX, Shared};
use crate::image::{self, Blob, Compression, Layer, configuration, digest};

pub fn cases() -> Vec<Case> {
    vec![
        case!("archives/docker-save", docker_save, own),
        case!("archives/oci-layout", oci_layout, own),
        case!("archives/export", export, own),
        case!("archives/broken", broken, own),
    ]
}

/// Standard output of `image ARGS` with `input`, or its message.
fn image_command(env: &Shared, args: &[&str], input: Vec<u8>) -> Result<Vec<u8>> {
    tokio::task::block_in_place(|| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_runsc-cri"))
            .arg("--listen")
            .arg(&env.socket)
            .arg("image")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no input")?;
        // It may have ended before it has read all.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let done = child.wait_with_output()?;
        drop(writer.join());
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "image {args:?}: {errors}");
        Ok(done.stdout)
    })
}

fn import(env: &Shared, args: &[&str], archive: Vec<u8>) -> Result<String> {
    let mut all = vec!["import", "-"];
    all.extend(args);
    Ok(String::from_utf8(image_command(env, &all, archive)?)?)
}

fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, target) in links {
        let mut header = Layer::header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, name, target)?;
    }
    for (name, data) in files {
        let mut header = Layer::header(tar::EntryType::Regular, 0o644, data.len() as u64);
        tar.append_data(&mut header, name, *data)?;
    }
    Ok(tar.into_inner()?)
}

fn data(text: &str, compression: Compression) -> Result<Blob> {
    let layer = Layer::default().file("data", 0o644, text.as_bytes());
    layer.compressed(compression).finish()
}

fn config(layers: &[&Blob]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| l.diff_id.clone()).collect();
    configuration(
        &diff_ids,
        &json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]}),
    )
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// As docker has written it until version 24: layers in folders, one that occurs
/// twice as a symlink, two names of one image, and a second image.
async fn docker_save(env: Shared) -> Result<()> {
    let busybox = image::busybox().compressed(Compression::None).finish()?;
    let (a, b) = (data("a", Compression::None)?, data("b", Compression::None)?);
    let first = config(&[&busybox, &a, &b, &a]);
    let second = config(&[&busybox, &b]);
    let name = |name: &str| env.image(name);
    let manifest = json!([
        {
            "Config": "first.json",
            "RepoTags": [name("docker/first:1"), name("docker/first:2")],
            "Layers": ["base/layer.tar", "a/layer.tar", "b/layer.tar", "again/layer.tar"],
        },
        {
            "Config": "second.json", "RepoTags": [name("docker/second:1")],
            "Layers": ["base/layer.tar", "b/layer.tar"],
        },
    ])
    .to_string();
    let files: &[(&str, &[u8])] = &[
        ("a/VERSION", b"1.0"),
        ("a/json", b"{}"),
        ("a/layer.tar", &a.bytes),
        ("b/layer.tar", &b.bytes),
        ("base/layer.tar", &busybox.bytes),
        ("first.json", &first),
        ("second.json", &second),
        ("manifest.json", manifest.as_bytes()),
        ("repositories", b"{}"),
    ];
    let whole = archive(files, &[("again/layer.tar", "../a/layer.tar")])?;
    for bytes in [
        whole.clone(),
        gzip(&whole)?,
        zstd::encode_all(&whole[..], 1)?,
    ] {
        let ids = import(&env, &[], bytes)?;
        ensure!(
            ids == format!("{}\n{}\n", digest(&first), digest(&second)),
            "{ids}"
        );
        for (image, text) in [("docker/first:2", "a"), ("docker/second:1", "b")] {
            ensure!(env.in_image(image, "cat /data").await? == text, "{image}");
        }
        let status = env.image_status(&name("docker/first:1")).await?;
        let tags = status.context("no first:1")?.repo_tags;
        ensure!(tags.contains(&name("docker/first:2")), "{tags:?}");
        env.remove_image(&name("docker/first:1")).await?;
        env.remove_image(&name("docker/second:1")).await?;
    }
    // From a file, with a name given to an image that has none.
    let manifest = json!([{"Config": "second.json", "RepoTags": null,
        "Layers": ["base/layer.tar", "b/layer.tar"]}])
    .to_string();
    let mut files = files.to_vec();
    files.retain(|(name, _)| *name != "manifest.json");
    files.push(("manifest.json", manifest.as_bytes()));
    let path = env.dir.join("docker.tar");
    std::fs::write(&path, archive(&files, &[])?)?;
    let path = path.display().to_string();
    ensure!(image_command(&env, &["import", &path], Vec::new()).is_err());
    let given = name("docker/given:7");
    image_command(&env, &["import", &path, "--name", &given], Vec::new())?;
    ensure!(env.in_image("docker/given:7", "cat /data").await? == "b");
    env.remove_image(&given).await
}

fn layout(blobs: &[&[u8]], index: &Value) -> Result<Vec<u8>> {
    let names: Vec<String> = blobs
        .iter()
        .map(|b| digest(b).replace("sha256:", "blobs/sha256/"))
        .collect();
    let index = index.to_string();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
    ];
    files.extend(names.iter().map(String::as_str).zip(blobs.iter().copied()));
    archive(&files, &[])
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(config: &[u8], layers: &[&Blob]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|l| descriptor(&l.media_type, &l.bytes))
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

/// A layout with an index of machines below its index, named by a tag alone.
async fn oci_layout(env: Shared) -> Result<()> {
    let busybox = image::busybox().finish()?;
    let own = data("layout", Compression::Zstd)?;
    let config = config(&[&busybox, &own]);
    let ours = manifest(&config, &[&busybox, &own]);
    let mut entry = descriptor(MANIFEST, &ours);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut other = descriptor(MANIFEST, b"not here");
    other["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [other, entry]});
    let inner = inner.to_string().into_bytes();
    let mut top = descriptor(kind, &inner);
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "v3"});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    let bytes = layout(
        &[&busybox.bytes, &own.bytes, &config, &ours, &inner],
        &index,
    )?;
    import(&env, &["--name", &env.image("layout/app")], bytes)?;
    ensure!(env.in_image("layout/app:v3", "cat /data").await? == "layout");
    env.remove_image(&env.image("layout/app:v3")).await
}

/// Out through a pipe, away, and in again; docker finds its own file in it.
async fn export(env: Shared) -> Result<()> {
    let name = env.image(BUSYBOX);
    let id = env.image_status(&name).await?.context("no busybox")?.id;
    let bytes = image_command(&env, &["export", "-", &name], Vec::new())?;
    let mut entries = tar::Archive::new(&bytes[..]);
    let mut docker = Value::Null;
    for entry in entries.entries()? {
        let entry = entry?;
        if entry.path()?.to_str() == Some("manifest.json") {
            docker = serde_json::from_reader(entry)?;
        }
    }
    let tags = docker[0]["RepoTags"].as_array();
    ensure!(tags.is_some_and(|t| t.contains(&json!(name))), "{docker}");
    ensure!(
        docker[0]["Layers"].as_array().is_some_and(|l| l.len() == 1),
        "{docker}"
    );
    image_command(&env, &["rm", &name], Vec::new())?;
    ensure!(env.image_status(&name).await?.is_none());
    ensure!(import(&env, &[], bytes)?.trim() == id);
    ensure!(env.in_image(BUSYBOX, "echo back").await? == "back");
    // No image, no file.
    let file = env.dir.join("none.tar");
    let missing = ["export", &file.display().to_string(), "no/such:1"];
    ensure!(image_command(&env, &missing, Vec::new()).is_err() && !file.exists());
    Ok(())
}

async fn broken(env: Shared) -> Result<()> {
    let fails = |what: &str, bytes: Vec<u8>, words: &str| -> Result<()> {
        match import(&env, &["--name", "broken/image:1"], bytes) {
            Ok(_) => anyhow::bail!("{what} was taken"),
            Err(err) => ensure!(format!("{err:#}").contains(words), "{what}: {err:#}"),
        }
        Ok(())
    };
    let layer = data("broken", Compression::None)?;
    let config = config(&[&layer]);
    let docker = |config: &str, layer: &str| {
        json!([{"Config": config, "RepoTags": ["broken/image:1"], "Layers": [layer]}]).to_string()
    };
    fails("nothing", Vec::new(), "neither an index.json")?;
    fails("text", b"hello".repeat(500), "not a tar archive")?;
    let text = docker("c.json", "missing.tar");
    let files: &[(&str, &[u8])] = &[("manifest.json", text.as_bytes()), ("c.json", &config)];
    fails(
        "a layer less",
        archive(files, &[])?,
        "lacks \"missing.tar\"",
    )?;
    // Names that lead out of the archive lead nowhere.
    let text = docker("../../../../etc/hostname", "l.tar");
    let files: &[(&str, &[u8])] = &[("manifest.json", text.as_bytes()), ("l.tar", &layer.bytes)];
    fails("a path", archive(files, &[])?, "lacks")?;
    let text = docker("c.json", "l.tar");
    let files: &[(&str, &[u8])] = &[("manifest.json", text.as_bytes()), ("c.json", &config)];
    let links = [("l.tar", "/etc/hostname")];
    fails("a link", archive(files, &links)?, "lacks")?;
    let manifest = manifest(&config, &[&layer]);
    let index = json!({"manifests": [descriptor(MANIFEST, &manifest)]});
    let wrong = "blobs/sha256/".to_owned() + &"2".repeat(64);
    let bytes = archive(
        &[
            (&wrong, b"other"),
            ("index.json", index.to_string().as_bytes()),
        ],
        &[],
    )?;
    fails("a digest", bytes, "has the digest")?;
    let mut half = layout(&[&layer.bytes, &config, &manifest], &index)?;
    let cut = half.len() - 2500;
    half.truncate(cut);
    fails("half an archive", half, "")?;
    ensure!(env.image_status("broken/image:1").await?.is_none());
    // A client that dies in the middle.
    let before = std::fs::read_dir(env.dir.join("root/ingest"))?.count();
    let mut child = Command::new(env!("CARGO_BIN_EXE_runsc-cri"))
        .arg("--listen")
        .arg(&env.socket)
        .args(["image", "import", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    let large = vec![b'x'; 8 << 20];
    let bytes = archive(&[("large", &large)], &[])?;
    stdin.write_all(bytes.get(..4 << 20).context("short")?)?;
    child.kill()?;
    child.wait()?;
    crate::env::wait_for("the end of the import", || {
        std::fs::read_dir(env.dir.join("root/ingest")).is_ok_and(|d| d.count() == before)
    })
    .await
}
