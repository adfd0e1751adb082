//! Mounts of a container: the kernel's file systems, the pod's files, and the
//! request's volumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tonic::Status;

use super::resources;
use super::spec::Input;
use crate::images::idmap::{Depth, IdMap};
use crate::images::layers::unmount;
use crate::node::Node;
use crate::proto::{LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode};
use crate::service::convert;
use crate::store::Container;

/// An image mounted as a volume: where it is, and where it goes.
#[derive(Debug)]
pub struct ImageMount {
    pub source: PathBuf,
    pub destination: String,
}

pub struct Mounts {
    pub list: Vec<Value>,
    pub root_propagation: Option<&'static str>,
}

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({"type": kind, "source": source, "destination": destination, "options": options})
}

pub fn all(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Result<Mounts> {
    let config = &input.container.config;
    let access = if security.privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "mqueue",
            "mqueue",
            "/dev/mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "sysfs",
            "sysfs",
            "/sys",
            &["nosuid", "noexec", "nodev", access],
        ),
        mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
    ];
    let state = input.node.pod_state(&input.pod.id);
    let host_ipc = input.pod.namespaces().ipc() == NamespaceMode::Node;
    let shm = if host_ipc {
        PathBuf::from("/dev/shm")
    } else {
        state.join("shm")
    };
    let files = [
        ("/dev/shm", shm),
        ("/etc/hosts", state.join("hosts")),
        ("/etc/hostname", state.join("hostname")),
        ("/etc/resolv.conf", state.join("resolv.conf")),
    ];
    for (destination, source) in files {
        if config
            .mounts
            .iter()
            .any(|m| clean(&m.container_path) == destination)
        {
            continue;
        }
        let access = if security.readonly_rootfs && destination != "/dev/shm" {
            "ro"
        } else {
            "rw"
        };
        list.push(json!({
            "type": "bind",
            "source": source,
            "destination": destination,
            "options": ["rbind", "rprivate", access],
        }));
    }
    // Volumes the image declares and the request does not fill: a folder that
    // lives as long as the container.
    for destination in input
        .defaults
        .volumes
        .iter()
        .flatten()
        .map(|(path, _)| path)
    {
        if config
            .mounts
            .iter()
            .any(|m| clean(&m.container_path) == clean(destination))
        {
            continue;
        }
        let source = volume(input, destination)?;
        list.push(json!({
            "type": "bind",
            "source": source,
            "destination": destination,
            "options": ["rbind", "rprivate", "rw"],
        }));
    }
    let mut root_propagation = None;
    let mut sorted: Vec<&Mount> = config.mounts.iter().collect();
    // A mount comes before those inside it.
    sorted.sort_by_key(|m| Path::new(&m.container_path).components().count());
    let mut image_mounts = input.image_mounts.iter();
    let mut mapped = Vec::new();
    for m in config.mounts.iter().filter(|m| is_image(m)) {
        if let Some(image) = image_mounts.next() {
            list.push(json!({
                "type": "bind",
                "source": image.source,
                "destination": m.container_path,
                "options": ["rbind", "rprivate", "ro", "nosuid", "nodev"],
            }));
        }
    }
    for m in sorted.into_iter().filter(|m| !is_image(m)) {
        let propagation = match m.propagation() {
            MountPropagation::PropagationPrivate => "rprivate",
            MountPropagation::PropagationHostToContainer => {
                root_propagation = root_propagation.or(Some("rslave"));
                "rslave"
            }
            MountPropagation::PropagationBidirectional => {
                root_propagation = Some("rshared");
                "rshared"
            }
        };
        let mut options = vec!["rbind", propagation];
        options.push(match (m.readonly, m.recursive_read_only) {
            (true, true) => {
                if m.propagation() != MountPropagation::PropagationPrivate {
                    return Err(Status::invalid_argument(
                        "a recursive read-only mount has no propagation",
                    )
                    .into());
                }
                "rro"
            }
            (true, false) => "ro",
            (false, true) => {
                return Err(
                    Status::invalid_argument("recursive_read_only without readonly").into(),
                );
            }
            (false, false) => "rw",
        });
        // A symlink is resolved now; what is missing becomes a folder.
        if !Path::new(&m.host_path).exists() {
            std::fs::create_dir_all(&m.host_path)
                .with_context(|| format!("mount source {} can't be made", m.host_path))?;
        }
        let source = std::fs::canonicalize(&m.host_path)
            .with_context(|| format!("mount source {}", m.host_path))?;
        let source = mapped_source(input, m, source, &mut mapped)?;
        list.push(json!({
            "type": "bind",
            "source": source,
            "destination": m.container_path,
            "options": options,
        }));
    }
    if let Some(ids) = input.ids {
        ids.mount(&mapped, Depth::Recursive)
            .map_err(|err| Status::failed_precondition(format!("volumes: {err:#}")))?;
    }
    if resources::unified_hierarchy() && security.privileged {
        root_propagation = root_propagation.or(Some("rslave"));
    }
    Ok(Mounts {
        list,
        root_propagation,
    })
}

/// Where the container's mount comes from: with mappings, a place in the bundle
/// where a clone of the source with mapped ids will be (an entry of `mapped`).
/// In a sandbox ids of files stay what they are, which comes to the same: root
/// inside is root for the volume.
fn mapped_source(
    input: &Input<'_>,
    m: &Mount,
    source: PathBuf,
    mapped: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<PathBuf> {
    if m.uid_mappings.is_empty() && m.gid_mappings.is_empty() {
        return Ok(source);
    }
    let own = input.pod.user_namespace().unwrap_or_default();
    if m.uid_mappings != own.uids || m.gid_mappings != own.gids {
        return Err(Status::invalid_argument(format!(
            "the id mappings of mount {} are not those of the pod",
            m.container_path
        ))
        .into());
    }
    if input.sandboxed {
        return Ok(source);
    }
    let place = input.bundle.join(format!("{MAPPED}{}", mapped.len()));
    if source.is_dir() {
        std::fs::create_dir_all(&place)?;
    } else {
        std::fs::File::create(&place)?;
    }
    mapped.push((source, place.clone()));
    Ok(place)
}

/// Beginnings of the names of mount points in a bundle.
const IMAGE: &str = "image-";
const MAPPED: &str = "mapped-";

/// Unmounts everything that is mounted below a bundle.
pub fn unmount_all(bundle: &Path) -> Result<()> {
    for entry in std::fs::read_dir(bundle)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "rootfs" || name.starts_with(IMAGE) || name.starts_with(MAPPED) {
            unmount(&path)?;
        }
        // Clones of layers, of an overlay that was not finished.
        if name.ends_with(".layers") {
            for place in std::fs::read_dir(&path)? {
                unmount(&place?.path())?;
            }
        }
    }
    Ok(())
}

fn is_image(m: &Mount) -> bool {
    m.image.as_ref().is_some_and(|i| !i.image.is_empty())
}

/// Without a slash at the end.
fn clean(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// Below the container's durable folder, filled with what the image has there.
fn volume(input: &Input<'_>, destination: &str) -> Result<PathBuf> {
    let number = input
        .defaults
        .volumes
        .iter()
        .flatten()
        .position(|(path, _)| path == destination)
        .unwrap_or(0);
    let dir = input
        .node
        .store
        .container_dir(&input.container.id)
        .join(format!("volume-{number}"));
    std::fs::create_dir_all(&dir)?;
    if let Some(ids) = input.ids {
        std::os::unix::fs::chown(&dir, Some(ids.root.0), Some(ids.root.1))?;
    }
    super::volumes::fill(&input.bundle.join("rootfs"), destination, &dir)?;
    Ok(dir)
}

/// Mounts the images of image volumes read-only below the bundle.
pub async fn image_volumes(
    node: &Arc<Node>,
    container: &Arc<Container>,
    ids: Option<&IdMap>,
    bundle: &Path,
) -> Result<Vec<ImageMount>> {
    let config = container.record().config;
    let mut mounted = Vec::new();
    for (number, m) in config.mounts.iter().filter(|m| is_image(m)).enumerate() {
        let name = m.image.clone().unwrap_or_default().image;
        let image = node
            .images
            .find(&name)
            .ok_or_else(|| Status::not_found(format!("image {name:?} of a volume is not here")))?;
        container.update(|record| {
            record.layers.extend(image.layers.iter().cloned());
            // What a tag was resolved to, for the status.
            let spec = record.config.mounts.iter_mut().filter(|m| is_image(m));
            if let Some(spec) = spec.skip(number).find_map(|m| m.image.as_mut()) {
                spec.image_ref = convert::image_ref(&image);
            }
        })?;
        let target = bundle.join(format!("{IMAGE}{number}"));
        std::fs::create_dir_all(&target)?;
        let layers = Arc::clone(&node.images.layers);
        let (ids, place) = (ids.cloned(), target.clone());
        tokio::task::spawn_blocking(move || {
            layers.mount(&image.layers, None, ids.as_ref(), &place)
        })
        .await??;
        let mut source = target.clone();
        if !m.image_sub_path.is_empty() {
            source = inside(&target, &m.image_sub_path)?;
        }
        mounted.push(ImageMount {
            source,
            destination: m.container_path.clone(),
        });
    }
    Ok(mounted)
}

/// A path inside an image, without leaving it by `..` or symlinks.
fn inside(root: &Path, path: &str) -> Result<PathBuf> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    use std::os::fd::AsRawFd;
    let dir = std::fs::File::open(root)?;
    let fd = rustix::fs::openat2(
        &dir,
        path.trim_start_matches('/'),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|err| Status::invalid_argument(format!("image sub path {path:?}: {err}")))?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(real)
}
