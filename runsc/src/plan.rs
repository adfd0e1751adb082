//! What a container is to be: the checked form of an OCI configuration that
//! `runsc` hands to the sentry and keeps in its state file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{Hooks, LinuxResources};
use serde::{Deserialize, Serialize};

use crate::network::NetworkPlan;

/// A container, checked and resolved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub id: String,
    pub bundle: PathBuf,
    pub process: ProcessPlan,
    pub root: RootPlan,
    pub hostname: String,
    pub domainname: String,
    /// In the order they are mounted.
    pub mounts: Vec<MountPlan>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Device nodes beside those that every container has.
    pub devices: Vec<DevicePlan>,
    /// Settings below `/proc/sys`, with dots for slashes.
    pub sysctl: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub network: NetworkPlan,
    /// Of its user namespace; empty: ids mean the same as on the host.
    pub users: Vec<IdRange>,
    pub groups: Vec<IdRange>,
    /// Of a further container of a pod.
    pub pod: Option<PodPlan>,
    pub host: HostPlan,
}

/// Ids of a user namespace: `count` from `inner` on are those of the host
/// from `outer` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub inner: u32,
    pub outer: u32,
    pub count: u32,
}

/// A container's place in a pod, whose sandbox it runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// Id of the container that the sandbox was made with.
    pub sandbox: String,
    pub pid: PodNamespace,
    pub ipc: PodNamespace,
    pub uts: PodNamespace,
}

/// Ids of the containers whose namespaces a container of a pod shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesPlan {
    pub pid_of: Option<String>,
    pub ipc_of: Option<String>,
    pub uts_of: Option<String>,
}

/// A namespace of a container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodNamespace {
    Own,
    /// That of the sandbox's first container.
    Sandbox,
    /// That of the container with this host process (`/proc/PID/ns/TYPE`).
    Of(i32),
}

/// What the host does for a container, without the sentry's knowledge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostPlan {
    pub cgroups: CgroupUse,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<PathBuf>,
    /// `linux.resources`, as `update` has changed them.
    pub resources: Option<LinuxResources>,
    pub hooks: Option<Hooks>,
    /// Parts of the configuration that don't apply to a sandbox, for the log.
    pub warnings: Vec<String>,
}

/// Whether a container gets a cgroup of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupUse {
    /// It stays in that of the command.
    #[default]
    None,
    /// As files of the cgroup file system (`cgroupfs` driver).
    Files,
    /// As a scope of systemd (`--systemd-cgroup`).
    Systemd,
}

/// The process of a container, or a further one (`exec`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
    pub capabilities: CapabilityPlan,
    pub no_new_privileges: bool,
    pub rlimits: Vec<RlimitPlan>,
    /// A terminal inside the sandbox instead of the given descriptors.
    pub terminal: bool,
    /// Rows and columns of the terminal to start with.
    pub console_size: Option<(u16, u16)>,
    pub oom_score_adj: Option<i32>,
    pub seccomp: Option<SeccompPlan>,
}

/// A filter for the guest's system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompPlan {
    pub instructions: Vec<BpfInstruction>,
    /// Log all that is not allowed.
    pub log: bool,
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A device node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevicePlan {
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

/// Capability sets as bit masks, bit N = capability number N.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CapabilityPlan {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// `RLIMIT_*` number.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// The root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootPlan {
    /// Host directory, absolute.
    pub path: PathBuf,
    pub readonly: bool,
    pub overlay: Overlay,
}

/// Where writes to the root file system go (`--overlay2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlay {
    /// Through to the host directory.
    None,
    /// To memory of the sandbox, gone with it.
    Memory,
}

/// One mount inside the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountPlan {
    pub destination: String,
    pub kind: MountKind,
    /// Mount flags, `MS_*` bits of `mount(2)` (`RDONLY`, `NOSUID`…).
    pub flags: u64,
    /// File system specific options, comma separated.
    pub data: String,
    /// What the file system begins with.
    pub contents: Contents,
}

/// What a fresh tmpfs begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contents {
    #[default]
    Empty,
    /// What is at the mount point (`tmpcopyup`).
    Copied,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A host file or directory, served by the gofer.
    Bind {
        source: PathBuf,
    },
    Proc,
    Sysfs,
    Tmpfs,
    Dev,
    Devpts,
    Mqueue,
    Cgroup,
}

impl ContainerPlan {
    /// Host directories and files that the gofer serves: the root first,
    /// then bind mounts in order.
    pub fn gofer_roots(&self) -> Vec<(PathBuf, bool)> {
        let root_readonly = self.root.readonly || self.root.overlay != Overlay::None;
        let root = (self.root.path.clone(), root_readonly);
        let binds = self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Bind { source } => {
                Some((source.clone(), mount.flags & libc::MS_RDONLY != 0))
            }
            _ => None,
        });
        std::iter::once(root).chain(binds).collect()
    }
}
