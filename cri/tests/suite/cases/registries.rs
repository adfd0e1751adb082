//! Layers of every kind, and registries that are broken or hostile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use runsc_cri::proto::*;
use serde_json::json;

use super::Case;
use crate::bad_registry::{BadRegistry, Behaviour, Layer as Served};
use crate::case;
use crate::env::Shared;
use crate::image::{self, Blob, Compression, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("registries/layer-types", layer_types),
        case!("registries/refused", refused, own),
        case!("registries/stalls", stalls, own),
        case!("registries/interrupted", interrupted, own),
        case!("registries/redirect", redirect, own),
        case!("registries/lies", lies, own),
    ]
}

fn plain() -> serde_json::Value {
    json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]})
}

/// Hand-made images have layers that are not compressed, at the bottom too,
/// empty ones, and one layer twice.
async fn layer_types(env: Shared) -> Result<()> {
    let data = |name: &str| Layer::default().file(name, 0o644, name.as_bytes());
    let docker = "application/vnd.docker.image.rootfs.diff.tar";
    image::push(
        &env.registry,
        "test/types:1",
        vec![
            image::busybox().compressed(Compression::None),
            data("docker").compressed(Compression::None).typed(docker),
            data("zstd").compressed(Compression::Zstd),
            Layer::default(),
            Layer::default().compressed(Compression::None),
            data("twice"),
            Layer::default().file(".wh.twice", 0o644, b""),
            data("twice"),
        ],
        plain(),
    )
    .await?;
    env.pull("test/types:1").await?;
    let text = env.in_image("test/types:1", "cat /docker /zstd /twice");
    ensure!(text.await? == "dockerzstdtwice");
    Ok(())
}

async fn pull(env: &Shared, image: &str) -> Result<String, tonic::Status> {
    let mut images = match env.images().await {
        Ok(images) => images,
        Err(err) => return Err(tonic::Status::unavailable(err.to_string())),
    };
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        }),
        auth: Some(AuthConfig {
            username: "user".into(),
            password: "secret".into(),
            ..AuthConfig::default()
        }),
        ..PullImageRequest::default()
    };
    let answer = tokio::time::timeout(Duration::from_secs(40), images.pull_image(request));
    match answer.await {
        Ok(answer) => Ok(answer?.into_inner().image_ref),
        Err(_) => Err(tonic::Status::deadline_exceeded("the pull hangs")),
    }
}

/// The pull fails and says so with these words; nothing of it is an image.
async fn fails(env: &Shared, image: &str, words: &[&str]) -> Result<()> {
    let Err(error) = pull(env, image).await else {
        anyhow::bail!("{image} was pulled");
    };
    let text = error.message();
    ensure!(
        words.iter().all(|word| text.contains(word)),
        "{image}: {text}"
    );
    ensure!(env.image_status(image).await?.is_none(), "{image} is there");
    Ok(())
}

fn small(text: &str) -> Result<Blob> {
    Layer::default()
        .file("data", 0o644, text.as_bytes())
        .finish()
}

/// Bytes that gzip can't make fewer.
fn noise(length: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..length / 4).flat_map(|_| next()).collect()
}

fn large() -> Result<Blob> {
    Layer::default()
        .file("noise", 0o644, &noise(8 << 20))
        .finish()
}

/// What is not an image for this machine is told apart.
async fn refused(env: Shared) -> Result<()> {
    let bad = BadRegistry::start("127.0.0.1", false).await?;
    for (number, kind) in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ]
    .into_iter()
    .enumerate()
    {
        let foreign = Layer::default().typed(kind).finish()?;
        let layer = Served::new(foreign, Behaviour::Plain);
        let name = bad.image(&format!("foreign{number}"), vec![layer]);
        fails(&env, &name, &["foreign", kind]).await?;
    }
    let sealed = Layer::default()
        .typed("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
        .finish()?;
    let name = bad.image("sealed", vec![Served::new(sealed, Behaviour::Plain)]);
    fails(&env, &name, &["encrypted"]).await?;
    let old = json!({"schemaVersion": 1, "fsLayers": [], "history": []});
    let name = bad.manifest("old", &old, Behaviour::Plain);
    fails(&env, &name, &["schema 1"]).await?;
    let name = bad.manifest("text", &json!("hello"), Behaviour::Plain);
    fails(&env, &name, &["not valid"]).await?;
    let page = "<html>".repeat(100_000).into_bytes();
    let name = bad.manifest("page", &json!({}), Behaviour::Instead(page));
    fails(&env, &name, &["not valid"]).await
}

/// A server that sends nothing more does not hold a pull for ever, nor others.
async fn stalls(env: Shared) -> Result<()> {
    let bad = BadRegistry::start("127.0.0.1", false).await?;
    let start = Instant::now();
    let layer = Served::new(large()?, Behaviour::Stall(1 << 20));
    let half = bad.image("half", vec![layer]);
    let layer = Served::new(small("nothing")?, Behaviour::Stall(0));
    let nothing = bad.image("nothing", vec![layer]);
    let silent = bad.manifest("silent", &json!({}), Behaviour::Stall(0));
    let text = ["no byte"];
    let other = Served::new(small("other")?, Behaviour::Plain);
    let other = bad.image("other", vec![other]);
    let (a, b, c, d) = tokio::join!(
        fails(&env, &half, &text),
        fails(&env, &nothing, &text),
        fails(&env, &silent, &["no answer for the manifest"]),
        pull(&env, &other),
    );
    a?;
    b?;
    c?;
    d?;
    // Four seconds each by the suite's configuration, and one more attempt.
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(30), "{took:?}");
    Ok(())
}

/// Errors of servers and lines pass; what is there is not fetched again.
async fn interrupted(env: Shared) -> Result<()> {
    let bad = BadRegistry::start("127.0.0.1", false).await?;
    let one = |name: &str, behaviour| -> Result<String> {
        Ok(bad.image(name, vec![Served::new(large()?, behaviour)]))
    };
    let trouble = one("trouble", Behaviour::Fail(500, 2))?;
    let busy = one("busy", Behaviour::Fail(429, 1))?;
    // More often than attempts without progress are made.
    let closing = one("closing", Behaviour::Close(1_500_000, 5))?;
    let whole = one("whole", Behaviour::CloseWithoutRanges(3 << 20, 2))?;
    for image in [trouble, busy, closing, whole] {
        pull(&env, &image).await?;
        // The next one is the same, and is to be fetched anew.
        env.remove_image(&image).await?;
    }
    let seen = bad.seen("/v2/closing/blobs/");
    ensure!(
        seen.iter()
            .any(|s| s.range.as_deref() == Some("bytes=1500000-")),
        "{seen:?}"
    );
    // For ever is too long, and a refusal is final.
    let broken = one("broken", Behaviour::Fail(503, 1000))?;
    let denied = one("denied", Behaviour::Fail(403, 1000))?;
    let ill = bad.manifest("ill", &json!({}), Behaviour::Fail(500, 1000));
    let (a, b, c) = tokio::join!(
        fails(&env, &broken, &["503"]),
        fails(&env, &denied, &["403"]),
        fails(&env, &ill, &["500"]),
    );
    a?;
    b?;
    c?;
    Ok(())
}

/// Blobs are often elsewhere; the password is for the registry alone.
async fn redirect(env: Shared) -> Result<()> {
    let bad = BadRegistry::start("127.0.0.1", true).await?;
    let store = BadRegistry::start("127.0.0.2", false).await?;
    let elsewhere = format!("http://{}", store.address);
    let layer = Served::new(large()?, Behaviour::Redirect(elsewhere));
    let path = format!("/v2/away/blobs/{}", image::digest(&layer.blob.bytes));
    let close = Behaviour::Close(1 << 20, 1);
    store.put(path, "", layer.blob.bytes.clone(), close);
    let name = bad.image("away", vec![layer]);
    pull(&env, &name).await?;
    ensure!(bad.seen("/v2/away/blobs/").iter().any(|s| s.authorized));
    let there = store.seen("");
    ensure!(there.len() == 2, "{there:?}");
    ensure!(
        !there.iter().any(|s| s.authorized),
        "the password has gone elsewhere"
    );
    env.remove_image(&name).await?;
    // A circle ends.
    let here = format!("http://{}", bad.address);
    let circle = Served::new(small("circle")?, Behaviour::Redirect(here));
    let name = bad.image("circle", vec![circle]);
    fails(&env, &name, &["redirect"]).await
}

/// Sizes and digests that are not true.
async fn lies(env: Shared) -> Result<()> {
    let bad = BadRegistry::start("127.0.0.1", false).await?;
    let sized = |name: &str, size| -> Result<String> {
        let layer = Served {
            size,
            ..Served::new(small(name)?, Behaviour::Plain)
        };
        Ok(bad.image(name, vec![layer]))
    };
    fails(&env, &sized("longer", -10)?, &["more bytes"]).await?;
    fails(&env, &sized("shorter", 10)?, &["layer sha256:"]).await?;
    let mut other = small("digest")?.bytes;
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    let layer = Served::new(small("digest")?, Behaviour::Instead(other));
    let name = bad.image("digest", vec![layer]);
    fails(&env, &name, &["digest"]).await?;
    let mut diff = small("diff")?;
    diff.diff_id = image::digest(b"something else");
    let name = bad.image("diff", vec![Served::new(diff, Behaviour::Plain)]);
    fails(&env, &name, &["unpacks to"]).await?;
    // The right digest of bytes that are no archive.
    let mut cut = large()?;
    cut.bytes.truncate(2 << 20);
    let name = bad.image("cut", vec![Served::new(cut, Behaviour::Plain)]);
    fails(&env, &name, &["can't be unpacked"]).await?;
    let mut text = small("text")?;
    text.bytes = b"hello".repeat(1000);
    let name = bad.image("text", vec![Served::new(text, Behaviour::Plain)]);
    fails(&env, &name, &["not a tar archive"]).await?;
    // A manifest that is not the one that was asked for.
    let wanted = format!("sha256:{}", "1".repeat(64));
    let path = format!("/v2/text/manifests/{wanted}");
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    bad.put(path, kind, b"{}".to_vec(), Behaviour::Plain);
    let name = format!("{}/text@{wanted}", bad.address);
    fails(&env, &name, &["digest"]).await?;
    let left = std::fs::read_dir(env.dir.join("root/layers"))?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("tmp-"))
        .count();
    ensure!(left == 0, "{left} half unpacked layers");
    Ok(())
}
