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
                    "systemd": false,
                    "systemdUser": false,
                    "rdma": true,
                },
                "seccomp": {"enabled": false},
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
