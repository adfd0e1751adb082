//! Volumes.

use anyhow::{Result, ensure};
use runsc_cri::proto::*;
use serde_json::json;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::image::{self, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("mounts/bind", bind),
        case!("mounts/symlink-swap", symlink_swap),
        case!("mounts/propagation", propagation),
        case!("mounts/recursive-read-only", recursive_read_only, own),
        case!("mounts/image-volumes", image_volumes),
        case!("mounts/image-as-volume", image_as_volume, own),
    ]
}

fn mount(host: &std::path::Path, inside: &str) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: inside.to_owned(),
        ..Mount::default()
    }
}

async fn with(env: &Shared, mounts: Vec<Mount>) -> Result<String> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    container.mounts = mounts;
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    Ok(id)
}

async fn bind(env: Shared) -> Result<()> {
    let dir = env.dir.join("bind");
    std::fs::create_dir_all(dir.join("inner"))?;
    std::fs::write(dir.join("file"), "host\n")?;
    let mut read_only = mount(&dir, "/ro");
    read_only.readonly = true;
    let id = with(
        &env,
        vec![
            // The order of the request is not that of the paths.
            mount(&dir.join("inner"), "/rw/inner-too"),
            mount(&dir, "/rw"),
            read_only,
            mount(&dir.join("file"), "/etc/single"),
            mount(&env.dir.join("made-by-mount"), "/made"),
        ],
    )
    .await?;
    ensure!(env.sh(&id, "cat /rw/file /ro/file /etc/single").await? == "host\nhost\nhost");
    env.sh(&id, "echo guest > /rw/written; echo x > /rw/inner-too/deep")
        .await?;
    ensure!(std::fs::read_to_string(dir.join("written"))? == "guest\n");
    ensure!(dir.join("inner/deep").exists());
    ensure!(env.sh(&id, "touch /ro/x").await.is_err());
    ensure!(env.dir.join("made-by-mount").is_dir());
    let status = env.status(&id).await?;
    ensure!(status.mounts.len() == 5, "{:?}", status.mounts);
    Ok(())
}

/// ConfigMaps are replaced by exchanging a symlink.
async fn symlink_swap(env: Shared) -> Result<()> {
    let dir = env.dir.join("configmap");
    for version in ["v1", "v2"] {
        std::fs::create_dir_all(dir.join(version))?;
        std::fs::write(dir.join(version).join("key"), version)?;
    }
    std::os::unix::fs::symlink("v1", dir.join("..data"))?;
    std::os::unix::fs::symlink("..data/key", dir.join("key"))?;
    let mut volume = mount(&dir, "/config");
    volume.readonly = true;
    let id = with(&env, vec![volume]).await?;
    ensure!(env.sh(&id, "cat /config/key").await? == "v1");
    std::os::unix::fs::symlink("v2", dir.join("..tmp"))?;
    std::fs::rename(dir.join("..tmp"), dir.join("..data"))?;
    for _ in 0..60 {
        if env.sh(&id, "cat /config/key").await? == "v2" {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("the container sees the old file")
}

async fn propagation(env: Shared) -> Result<()> {
    if env.sandboxed() {
        return Ok(());
    }
    let dir = env.dir.join("shared");
    std::fs::create_dir_all(&dir)?;
    let run = |line: String| -> Result<()> {
        let done = std::process::Command::new("sh")
            .arg("-ec")
            .arg(line)
            .status()?;
        ensure!(done.success());
        Ok(())
    };
    let d = dir.display();
    run(format!(
        "mount --bind {d} {d} && mount --make-shared {d} && mkdir -p {d}/late {d}/up"
    ))?;
    let mut slave = mount(&dir, "/slave");
    slave.propagation = MountPropagation::PropagationHostToContainer.into();
    let private = mount(&dir, "/private");
    let id = with(&env, vec![slave, private]).await?;
    run(format!(
        "mount -t tmpfs tmpfs {d}/late && touch {d}/late/file"
    ))?;
    let seen = env.sh(&id, "ls /slave/late").await;
    let hidden = env.sh(&id, "ls /private/late").await;
    env.clean().await?;
    run(format!("umount {d}/late; umount {d}"))?;
    ensure!(seen? == "file");
    ensure!(hidden?.is_empty());
    Ok(())
}

async fn recursive_read_only(env: Shared) -> Result<()> {
    let wanted = if env.handler.is_empty() {
        "runc"
    } else {
        &env.handler
    };
    let status = env
        .runtime()
        .await?
        .status(StatusRequest::default())
        .await?
        .into_inner();
    let supported = status.runtime_handlers.iter().any(|h| {
        h.name == wanted
            && h.features
                .as_ref()
                .is_some_and(|f| f.recursive_read_only_mounts)
    });
    let dir = env.dir.join("rro");
    std::fs::create_dir_all(dir.join("sub"))?;
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(dir.join("sub"))
        .status()?;
    ensure!(status.success());
    let mut volume = mount(&dir, "/v");
    volume.readonly = true;
    volume.recursive_read_only = true;
    let made = with(&env, vec![volume]).await;
    let written = match &made {
        Ok(id) => env.sh(id, "touch /v/sub/x").await.is_ok(),
        Err(_) => false,
    };
    env.clean().await?;
    let _ = std::process::Command::new("umount")
        .arg(dir.join("sub"))
        .status();
    ensure!(!written, "a recursively read-only mount was written to");
    ensure!(made.is_ok() || !supported, "{made:?}");
    Ok(())
}

/// `VOLUME` of an image: a folder with the image's content, gone with the
/// container.
async fn image_volumes(env: Shared) -> Result<()> {
    let layer =
        Layer::default()
            .dir("data", 0o750)
            .owned("data/seed", 0o640, 33, b"from the image");
    image::push(
        &env.registry,
        "test/volume:1",
        vec![image::busybox(), layer],
        json!({"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"], "Volumes": {"/data": {}, "/new/one": {}}}),
    )
    .await?;
    env.pull("test/volume:1").await?;
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &[]);
    container.image = env.image_spec("test/volume:1");
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let seed = env
        .sh(&id, "cat /data/seed; stat -c '%a %u' /data/seed")
        .await?;
    ensure!(seed == "from the image640 33", "{seed}");
    env.sh(&id, "echo x > /data/more; echo y > /new/one/file")
        .await?;
    let mounts = env.sh(&id, "cat /proc/mounts").await?;
    ensure!(mounts.contains(" /data "), "{mounts}");
    Ok(())
}

async fn image_as_volume(env: Shared) -> Result<()> {
    let layer = || {
        Layer::default()
            .dir("etc", 0o755)
            .dir("etc/sub", 0o755)
            .file("etc/sub/f", 0o644, b"deep")
    };
    image::push(&env.registry, "test/files:1", vec![layer()], json!({})).await?;
    env.pull("test/files:1").await?;
    let volume = |inside: &str, sub: &str| Mount {
        container_path: inside.to_owned(),
        image: env.image_spec("test/files:1"),
        image_sub_path: sub.to_owned(),
        readonly: true,
        ..Mount::default()
    };
    let id = with(&env, vec![volume("/whole", ""), volume("/part", "etc/sub")]).await?;
    ensure!(env.sh(&id, "cat /whole/etc/sub/f /part/f").await? == "deepdeep");
    ensure!(env.sh(&id, "touch /whole/x").await.is_err());
    for mount in env.status(&id).await?.mounts {
        let image = mount.image.unwrap_or_default();
        let digest = format!("{}@sha256:", env.image("test/files"));
        ensure!(image.image_ref.starts_with(&digest), "{image:?}");
        ensure!(image.image == env.image("test/files:1"), "{image:?}");
    }
    ensure!(
        with(&env, vec![volume("/out", "../..")]).await.is_err(),
        "out of the image"
    );
    Ok(())
}
