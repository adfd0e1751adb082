//! What the kubelet evicts by: bytes and files of writable layers and images.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::image::{self, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("storage/writable-layer", writable_layer, own),
        case!("storage/image-gc", image_gc, own),
        case!("storage/swapped-files", swapped_files),
    ]
}

/// Bytes and files of a container's writable layer.
async fn layer(env: &Shared, id: &str) -> Result<(u64, u64)> {
    let request = ContainerStatsRequest {
        container_id: id.to_owned(),
    };
    let answer = env.runtime().await?.container_stats(request).await?;
    let stats = answer.into_inner().stats.context("no statistics")?;
    let layer = stats.writable_layer.context("no writable layer")?;
    let value = |v: Option<UInt64Value>| v.map(|v| v.value).unwrap_or_default();
    Ok((value(layer.used_bytes), value(layer.inodes_used)))
}

async fn info(env: &Shared) -> Result<(u64, u64)> {
    let mut images = env.images().await?;
    let answer = images.image_fs_info(ImageFsInfoRequest::default()).await?;
    let answer = answer.into_inner();
    let sum = |all: &[FilesystemUsage]| -> u64 {
        all.iter()
            .filter_map(|f| f.used_bytes.as_ref().map(|v| v.value))
            .sum()
    };
    Ok((
        sum(&answer.image_filesystems),
        sum(&answer.container_filesystems),
    ))
}

const MIB: u64 = 1 << 20;

/// Files of the root count, while they are there; those of volumes and of memory
/// do not.
async fn writable_layer(env: Shared) -> Result<()> {
    let dir = env.dir.join("empty-dir");
    std::fs::create_dir_all(&dir)?;
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    container.mounts.push(Mount {
        host_path: dir.display().to_string(),
        container_path: "/volume".into(),
        ..Mount::default()
    });
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let (before, files) = layer(&env, &id).await?;
    ensure!(before < MIB, "an unused layer has {before} bytes");
    env.sh(
        &id,
        "dd if=/dev/zero of=/root/a bs=1M count=8; mkdir /many; \
         i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo x > /many/$i; done; \
         dd if=/dev/zero of=/volume/b bs=1M count=16; \
         dd if=/dev/zero of=/dev/shm/c bs=1M count=16",
    )
    .await?;
    let (bytes, now) = layer(&env, &id).await?;
    ensure!(
        (8 * MIB..11 * MIB).contains(&(bytes - before)),
        "{before} {bytes}"
    );
    ensure!((101..=104).contains(&(now - files)), "{files} {now}");
    let (_, containers) = info(&env).await?;
    ensure!(containers >= bytes, "{containers} {bytes}");
    env.sh(&id, "rm -r /root/a /many").await?;
    let (bytes, now) = layer(&env, &id).await?;
    ensure!(bytes < before + MIB && now <= files + 2, "{bytes} {now}");
    // After the end as well: the kubelet counts dead containers until they go.
    env.sh(&id, "dd if=/dev/zero of=/root/d bs=1M count=4")
        .await?;
    env.stop(&id, 0).await?;
    ensure!(layer(&env, &id).await?.0 >= 4 * MIB);
    env.remove_pod(&pod).await?;
    let (_, containers) = info(&env).await?;
    ensure!(containers < 4 * MIB, "{containers} bytes of no container");
    Ok(())
}

/// The kubelet lists images, takes those no container names, removes them by
/// id, and looks how much that gave.
async fn image_gc(env: Shared) -> Result<()> {
    let mut noise = vec![0u8; 12 << 20];
    let mut state = 0x1234_5678u32;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state.to_le_bytes()[1];
    }
    let layer = Layer::default().file("noise", 0o644, &noise);
    let config = serde_json::json!({"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"]});
    let name = "test/garbage:1";
    image::push(&env.registry, name, vec![image::busybox(), layer], config).await?;
    let (before, _) = info(&env).await?;
    let id = env.pull(name).await?;
    let (with, _) = info(&env).await?;
    // Compressed and unpacked.
    ensure!(with - before >= 20 * MIB, "{before} {with}");
    let pod_config = env.pod_config();
    let pod = env.run_pod(&pod_config).await?;
    let mut container = env.container_config("main", &["true"]);
    container.image = env.image_spec(name);
    let used = env.create(&pod, &pod_config, &container).await?;
    env.start_container(&used).await?;
    let status = env.wait_exit(&used).await?;
    // By these the kubelet knows which images are in use.
    let mut images = env.images().await?;
    let all = images.list_images(ListImagesRequest::default()).await?;
    let all = all.into_inner().images;
    let image = all.iter().find(|i| i.id == id).context("not listed")?;
    ensure!(
        status.image_id == image.id || image.repo_digests.contains(&status.image_ref),
        "{status:?} {image:?}"
    );
    ensure!(!image.pinned && image.size >= 12 * MIB, "{image:?}");
    env.remove_pod(&pod).await?;
    env.remove_image(&id).await?;
    for _ in 0..100 {
        let (after, _) = info(&env).await?;
        if after <= before + MIB {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("removing the image gave nothing")
}

/// ConfigMaps, again and again, seen by a process that keeps reading them, with
/// a file added and one taken away.
async fn swapped_files(env: Shared) -> Result<()> {
    let dir = env.dir.join("swapped");
    let version = |number: u32| -> Result<()> {
        let name = format!("..v{number}");
        std::fs::create_dir_all(dir.join(&name))?;
        std::fs::write(dir.join(&name).join("key"), format!("value {number}\n"))?;
        std::fs::write(dir.join(&name).join(format!("extra{number}")), "x")?;
        let new = dir.join("..data_tmp");
        std::os::unix::fs::symlink(&name, &new)?;
        std::fs::rename(&new, dir.join("..data"))?;
        if number > 0 {
            std::fs::remove_dir_all(dir.join(format!("..v{}", number - 1)))?;
        }
        Ok(())
    };
    std::fs::create_dir_all(&dir)?;
    version(0)?;
    std::os::unix::fs::symlink("..data/key", dir.join("key"))?;
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let script = "while :; do cat /config/key; sleep 0.05; done";
    let mut container = env.container_config("main", &["sh", "-c", script]);
    container.mounts.push(Mount {
        host_path: dir.display().to_string(),
        container_path: "/config".into(),
        readonly: true,
        ..Mount::default()
    });
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let status = env.status(&id).await?;
    for number in 1..=4 {
        version(number)?;
        let line = format!("value {number}");
        crate::env::wait_for(&line, || {
            env.log(&status)
                .is_ok_and(|log| log.last().is_some_and(|(_, _, last)| *last == line))
        })
        .await?;
        let files = env.sh(&id, "ls /config/..data/").await?;
        ensure!(files == format!("extra{number}\nkey"), "{files}");
    }
    env.remove_pod(&pod).await
}
