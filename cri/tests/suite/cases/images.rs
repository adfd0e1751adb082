//! Pulling, listing, removing images; what layers may do.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;
use serde_json::json;

use super::Case;
use crate::case;
use crate::env::{BUSYBOX, Shared, wait_for};
use crate::image::{self, Compression, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("images/list-status", list_status),
        case!("images/digest-index", digest_index),
        case!("images/compressions", compressions),
        case!("images/whiteouts", whiteouts),
        case!("images/missing", missing),
        case!("images/remove", remove),
        case!("images/shared-layers", shared_layers, own),
        case!("images/hostile", hostile, own),
        case!("images/limits", limits, own),
        case!("images/mirror", mirror),
        case!("images/tls-credentials", tls_credentials),
        case!("images/concurrent", concurrent),
    ]
}

fn plain() -> serde_json::Value {
    json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]})
}

async fn list_status(env: Shared) -> Result<()> {
    let image = env
        .image_status(&env.image(BUSYBOX))
        .await?
        .context("not there")?;
    ensure!(image.id.starts_with("sha256:"), "{image:?}");
    ensure!(image.repo_tags == [env.image(BUSYBOX)], "{image:?}");
    ensure!(
        image
            .repo_digests
            .iter()
            .all(|d| d.contains("/test/busybox@sha256:")),
        "{image:?}"
    );
    ensure!(image.size > 100_000, "{image:?}");
    // By id, by its digits, by digest.
    for name in [&image.id, image.repo_digests.first().context("no digest")?] {
        let same = env.image_status(name).await?.context("not found")?;
        ensure!(same.id == image.id, "{name}");
    }
    let mut client = env.images().await?;
    let all = client
        .list_images(ListImagesRequest::default())
        .await?
        .into_inner()
        .images;
    ensure!(all.iter().any(|i| i.id == image.id));
    ensure!(env.image_status("127.0.0.1:1/no/such:1").await?.is_none());
    let info = client
        .image_fs_info(ImageFsInfoRequest::default())
        .await?
        .into_inner();
    let used: u64 = info
        .image_filesystems
        .iter()
        .filter_map(|f| f.used_bytes.as_ref().map(|v| v.value))
        .sum();
    ensure!(used > 100_000, "{info:?}");
    let place = info.image_filesystems.first().and_then(|f| f.fs_id.clone());
    ensure!(
        place.is_some_and(|p| std::path::Path::new(&p.mountpoint).is_dir()),
        "{info:?}"
    );
    Ok(())
}

async fn digest_index(env: Shared) -> Result<()> {
    let layers = |name: &str| {
        vec![
            image::busybox(),
            Layer::default().file("which", 0o644, name.as_bytes()),
        ]
    };
    let ours = image::push(&env.registry, "test/multi:amd64", layers("amd64"), plain()).await?;
    let other = image::push(&env.registry, "test/multi:arm64", layers("arm64"), plain()).await?;
    let index = image::push_index(
        &env.registry,
        "test/multi:both",
        &[(&other, "arm64"), (&ours, "amd64")],
    )
    .await?;
    let id = env.pull("test/multi:both").await?;
    let status = env.image_status(&id).await?.context("not there")?;
    ensure!(
        status.repo_digests == [env.image(&format!("test/multi@{index}"))],
        "{status:?}"
    );
    ensure!(env.in_image("test/multi:both", "cat /which").await? == "amd64");
    // The manifest itself, by digest and without a tag.
    let same = env.pull(&format!("test/multi@{ours}")).await?;
    ensure!(same == id, "{same} {id}");
    ensure!(
        env.in_image(&format!("test/multi@{ours}"), "cat /which")
            .await?
            == "amd64"
    );
    let arm = image::push_index(&env.registry, "test/multi:arm", &[(&other, "arm64")]).await?;
    ensure!(
        env.pull(&format!("test/multi@{arm}")).await.is_err(),
        "no image for this machine"
    );
    let wrong = format!("test/multi@sha256:{}", "0".repeat(64));
    ensure!(env.pull(&wrong).await.is_err(), "no such digest");
    Ok(())
}

async fn compressions(env: Shared) -> Result<()> {
    for (name, compression) in [
        ("test/zstd:1", Compression::Zstd),
        ("test/plain:1", Compression::None),
    ] {
        let data = Layer::default()
            .file("data", 0o644, name.as_bytes())
            .compressed(compression);
        image::push(&env.registry, name, vec![image::busybox(), data], plain()).await?;
        env.pull(name).await?;
        ensure!(env.in_image(name, "cat /data").await? == name);
    }
    Ok(())
}

async fn whiteouts(env: Shared) -> Result<()> {
    let below = Layer::default()
        .dir("d", 0o755)
        .file("d/gone", 0o644, b"1")
        .file("d/kept", 0o644, b"2")
        .dir("opaque", 0o700)
        .file("opaque/old", 0o644, b"3")
        .dir("tree", 0o755)
        .file("tree/file", 0o644, b"4")
        .file("becomes-dir", 0o644, b"5")
        .dir("sticky", 0o1777);
    let above = Layer::default()
        .file("d/.wh.gone", 0o644, b"")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/new", 0o644, b"6")
        .file(".wh.tree", 0o644, b"")
        .dir("becomes-dir", 0o755)
        .file("becomes-dir/x", 0o644, b"7")
        .file("sticky/file", 0o4755, b"8")
        .hard_link("sticky/link", "sticky/file", 0o4755)
        .symlink("dangling", "/no/where");
    image::push(
        &env.registry,
        "test/white:1",
        vec![image::busybox(), below, above],
        plain(),
    )
    .await?;
    env.pull("test/white:1").await?;
    let line = "ls /d /opaque; ls /tree 2>/dev/null; cat /becomes-dir/x; \
                stat -c '%a %h' /sticky/file; stat -c %a /sticky; readlink /dangling";
    let text = env.in_image("test/white:1", line).await?;
    ensure!(
        text.lines().collect::<Vec<_>>()
            == [
                "/d:",
                "kept",
                "",
                "/opaque:",
                "new",
                "74755 2",
                "1777",
                "/no/where"
            ],
        "{text:?}"
    );
    Ok(())
}

async fn missing(env: Shared) -> Result<()> {
    ensure!(env.pull("test/none:1").await.is_err(), "no repository");
    ensure!(env.pull("test/busybox:none").await.is_err(), "no tag");
    let mut client = env.images().await?;
    for name in ["", "UPPER CASE", "127.0.0.1:1/refused:1"] {
        let image = Some(ImageSpec {
            image: name.to_owned(),
            ..ImageSpec::default()
        });
        let request = PullImageRequest {
            image,
            ..PullImageRequest::default()
        };
        ensure!(client.pull_image(request).await.is_err(), "{name:?}");
    }
    Ok(())
}

async fn remove(env: Shared) -> Result<()> {
    let layer = Layer::default().file("removed", 0o644, b"x");
    image::push(
        &env.registry,
        "test/removed:1",
        vec![image::busybox(), layer],
        plain(),
    )
    .await?;
    let id = env.pull("test/removed:1").await?;
    // A container keeps what it runs from.
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    container.image = env.image_spec("test/removed:1");
    let running = env.create(&pod, &config, &container).await?;
    env.start_container(&running).await?;
    env.remove_image(&id).await?;
    ensure!(env.image_status(&id).await?.is_none());
    ensure!(env.sh(&running, "cat /removed").await? == "x");
    env.remove_image(&id).await?;
    env.remove_pod(&pod).await?;
    // A tag that moves leaves the older image without it.
    let first = image::push(
        &env.registry,
        "test/moved:1",
        vec![image::busybox()],
        json!({"Cmd": ["a"]}),
    );
    first.await?;
    let old = env.pull("test/moved:1").await?;
    let second = image::push(
        &env.registry,
        "test/moved:1",
        vec![image::busybox()],
        json!({"Cmd": ["b"]}),
    );
    second.await?;
    let new = env.pull("test/moved:1").await?;
    ensure!(old != new);
    let status = env
        .image_status(&old)
        .await?
        .context("the old image is gone")?;
    ensure!(status.repo_tags.is_empty(), "{status:?}");
    Ok(())
}

fn folders(env: &Shared, name: &str) -> Result<usize> {
    Ok(std::fs::read_dir(env.dir.join("root").join(name))?.count())
}

/// Content is kept once, and goes with its last user.
async fn shared_layers(env: Shared) -> Result<()> {
    // What earlier cases left goes with the next removal.
    image::push(
        &env.registry,
        "test/any:1",
        vec![image::busybox()],
        json!({"Cmd": ["any"]}),
    )
    .await?;
    env.pull("test/any:1").await?;
    env.remove_image(&env.image("test/any:1")).await?;
    let before = (folders(&env, "layers")?, folders(&env, "blobs/sha256")?);
    for name in ["test/one:1", "test/two:1"] {
        let own = Layer::default().file("own", 0o644, name.as_bytes());
        let common = Layer::default().file("common", 0o644, b"the same");
        image::push(
            &env.registry,
            name,
            vec![image::busybox(), common, own],
            plain(),
        )
        .await?;
        env.pull(name).await?;
    }
    // One common layer (busybox was there) and two of their own.
    ensure!(folders(&env, "layers")? == before.0 + 3, "{before:?}");
    env.remove_image(&env.image("test/one:1")).await?;
    ensure!(folders(&env, "layers")? == before.0 + 2);
    ensure!(env.in_image("test/two:1", "cat /own").await? == "test/two:1");
    env.remove_image(&env.image("test/two:1")).await?;
    ensure!(folders(&env, "layers")? == before.0);
    ensure!(folders(&env, "blobs/sha256")? == before.1);
    Ok(())
}

/// Archives that try to write outside of their folder.
async fn hostile(env: Shared) -> Result<()> {
    let outside = format!("/tmp/cri-suite-escape-{}", std::process::id());
    let up = "../".repeat(12);
    let name = outside.trim_start_matches('/');
    let attempts: Vec<(&str, Layer)> = vec![
        (
            "dots",
            Layer::default().raw_file(format!("{up}{name}").as_bytes(), b"x"),
        ),
        (
            "absolute",
            Layer::default().raw_file(outside.as_bytes(), b"x"),
        ),
        (
            "symlink",
            Layer::default().symlink("way", "/tmp").raw_file(
                format!("way/{}", name.trim_start_matches("tmp/")).as_bytes(),
                b"x",
            ),
        ),
        (
            "symlink-up",
            Layer::default()
                .symlink("way", &format!("{up}tmp"))
                .raw_file(
                    format!("way/{}", name.trim_start_matches("tmp/")).as_bytes(),
                    b"x",
                ),
        ),
        (
            "link",
            Layer::default().hard_link("passwd", &format!("{up}etc/passwd"), 0o644),
        ),
        (
            "link-by-symlink",
            Layer::default()
                .symlink("s", "/etc/hostname")
                .hard_link("l", "s", 0o777)
                .file("l", 0o777, b"overwritten"),
        ),
        ("whiteout-dots", Layer::default().raw_file(b"d/.wh...", b"")),
    ];
    let before = std::fs::read("/etc/hostname").unwrap_or_default();
    for (what, layer) in attempts {
        let image = format!("test/hostile-{what}:1");
        image::push(
            &env.registry,
            &image,
            vec![image::busybox(), layer],
            plain(),
        )
        .await?;
        let pulled = env.pull(&image).await;
        ensure!(
            !std::path::Path::new(&outside).exists(),
            "{what}: {pulled:?}"
        );
        ensure!(
            std::fs::read("/etc/hostname").unwrap_or_default() == before,
            "{what}"
        );
        if pulled.is_ok() {
            // Whatever it made is inside.
            env.in_image(&image, "true").await?;
        }
    }
    ensure!(env.pull(BUSYBOX).await.is_ok());
    Ok(())
}

async fn limits(env: Shared) -> Result<()> {
    let bomb = Layer::default().file("zeros", 0o644, &vec![0; 300 << 20]);
    image::push(&env.registry, "test/bomb:1", vec![bomb], plain()).await?;
    let error = env.pull("test/bomb:1").await;
    ensure!(
        format!("{error:?}").contains("max_layer_bytes"),
        "{error:?}"
    );
    let mut many = Layer::default();
    for number in 0..20_100 {
        many = many.symlink(&format!("f{number}"), "x");
    }
    image::push(&env.registry, "test/many:1", vec![many], plain()).await?;
    let error = env.pull("test/many:1").await;
    ensure!(
        format!("{error:?}").contains("max_layer_files"),
        "{error:?}"
    );
    let left = std::fs::read_dir(env.dir.join("root/layers"))?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("tmp-"))
        .count();
    ensure!(left == 0, "{left} half unpacked layers");
    Ok(())
}

fn hosts(env: &Shared, registry: &str, text: &str) -> Result<()> {
    let dir = env.dir.join("certs.d").join(registry);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("hosts.toml"), text)?;
    Ok(())
}

async fn pull_whole(env: &Shared, image: &str, auth: Option<AuthConfig>) -> Result<String> {
    let image = Some(ImageSpec {
        image: image.to_owned(),
        ..ImageSpec::default()
    });
    let request = PullImageRequest {
        image,
        auth,
        ..PullImageRequest::default()
    };
    Ok(env
        .images()
        .await?
        .pull_image(request)
        .await?
        .into_inner()
        .image_ref)
}

async fn mirror(env: Shared) -> Result<()> {
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n\
         [host.\"http://127.0.0.1:1\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        env.registry
    );
    hosts(&env, "mirrored.example", &text)?;
    let id = pull_whole(&env, "mirrored.example/test/busybox:1", None).await?;
    let status = env.image_status(&id).await?.context("not there")?;
    ensure!(
        status
            .repo_tags
            .contains(&"mirrored.example/test/busybox:1".to_owned()),
        "{status:?}"
    );
    env.remove_image("mirrored.example/test/busybox:1").await?;
    // Ours forgets the whole image with it.
    env.pull(BUSYBOX).await?;
    Ok(())
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A registry with a certificate of its own authority and a password.
async fn tls_credentials(env: Shared) -> Result<()> {
    let dir = env.dir.join("tls");
    std::fs::create_dir_all(&dir)?;
    let script =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
         -subj /CN=authority -keyout ca.key -out ca.pem &&
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=suite \
         -keyout key.pem -out request.pem &&
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions &&
         openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile extensions -out cert.pem";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(&dir)
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("   (openssl is not installed: left out)");
        return Ok(());
    }
    // user:secret
    std::fs::write(
        dir.join("htpasswd"),
        "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
    )?;
    let port = crate::env::free_port()?;
    std::fs::write(
        dir.join("registry.yml"),
        format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}\n\
             http:\n  addr: 127.0.0.1:{port}\n  tls:\n    certificate: {d}/cert.pem\n    key: {d}/key.pem\n\
             auth:\n  htpasswd:\n    realm: suite\n    path: {d}/htpasswd\n",
            root = env.dir.join("registry").display(),
            d = dir.display(),
        ),
    )?;
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("registry.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _registry = Registry(child);
    wait_for("the second registry", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await?;
    let host = format!("127.0.0.1:{port}");
    let name = format!("{host}/test/busybox:1");
    let auth = |password: &str| {
        Some(AuthConfig {
            username: "user".into(),
            password: password.into(),
            ..AuthConfig::default()
        })
    };
    hosts(
        &env,
        &host,
        &format!(
            "server = \"https://{host}\"\n[host.\"https://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        ),
    )?;
    ensure!(
        pull_whole(&env, &name, auth("secret")).await.is_err(),
        "an unknown authority"
    );
    hosts(
        &env,
        &host,
        &format!(
            "server = \"https://{host}\"\n[host.\"https://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"{}/ca.pem\"\n",
            dir.display()
        ),
    )?;
    ensure!(
        pull_whole(&env, &name, None).await.is_err(),
        "no credentials"
    );
    ensure!(
        pull_whole(&env, &name, auth("wrong")).await.is_err(),
        "wrong credentials"
    );
    pull_whole(&env, &name, auth("secret")).await?;
    let encoded = AuthConfig {
        auth: "dXNlcjpzZWNyZXQ=".into(),
        ..AuthConfig::default()
    };
    pull_whole(&env, &name, Some(encoded)).await?;
    Ok(())
}

/// Many pulls of one image at a time are one.
async fn concurrent(env: Shared) -> Result<()> {
    let data: Vec<u8> = (0..4_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let layer = Layer::default().file("data", 0o644, &data);
    image::push(
        &env.registry,
        "test/concurrent:1",
        vec![image::busybox(), layer],
        plain(),
    )
    .await?;
    let pulls = (0..10).map(|_| env.pull("test/concurrent:1"));
    let mut ids = Vec::new();
    for pulled in futures_util::future::join_all(pulls).await {
        ids.push(pulled?);
    }
    ids.dedup();
    ensure!(ids.len() == 1, "{ids:?}");
    let sum = env
        .in_image("test/concurrent:1", "busybox sha256sum < /data")
        .await?;
    ensure!(image::digest(&data).ends_with(sum.split_whitespace().next().unwrap_or("?")));
    Ok(())
}
