//! `features`: what engines may ask of this runtime (OCI runtime
//! specification 1.2, `features.md`).

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::oci;
use crate::state::OCI_VERSION;

#[derive(Args)]
pub struct Features {}

impl Features {
    pub fn run(self) -> Result<u8> {
        let features = json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": OCI_VERSION,
            "hooks": [
                "prestart", "createRuntime", "createContainer", "startContainer",
                "poststart", "poststop",
            ],
            "mountOptions": oci::known_mount_options(),
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
                "capabilities": oci::capability_names(),
                "cgroup": {
                    "v1": true,
                    "v2": true,
                    "systemd": true,
                    "systemdUser": false,
                    "rdma": true,
                },
                "seccomp": {
                    "enabled": true,
                    "actions": [
                        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",
                        "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                        "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                    ],
                    "operators": [
                        "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE",
                        "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                    ],
                    "archs": ["SCMP_ARCH_X86_64"],
                    "knownFlags": [
                        "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                    ],
                },
                "apparmor": {"enabled": false},
                "selinux": {"enabled": false},
                "intelRdt": {"enabled": false},
            },
            "annotations": {"runsc.version": env!("CARGO_PKG_VERSION")},
        });
        println!("{features:#}");
        Ok(0)
    }
}
