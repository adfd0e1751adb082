//! `runsc-cri init`: a bridge configuration for a single node.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::config::CniConfig;

/// Writes `10-runsc-cri.conflist` unless there is a configuration already.
pub fn write(config: &CniConfig, subnet: &str) -> Result<PathBuf> {
    let path = config.config_dir.join("10-runsc-cri.conflist");
    if config.config_dir.exists()
        && std::fs::read_dir(&config.config_dir)?.flatten().any(|e| {
            e.path()
                .extension()
                .is_some_and(|x| x == "conflist" || x == "conf")
        })
    {
        bail!(
            "{} has a network configuration already; nothing was changed",
            config.config_dir.display()
        );
    }
    std::fs::create_dir_all(&config.config_dir)
        .with_context(|| format!("{} can't be made", config.config_dir.display()))?;
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "runsc-cri",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "runsc0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}]
                }
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}}
        ]
    });
    crate::store::atomic::write(&path, &serde_json::to_vec_pretty(&list)?)?;
    Ok(path)
}
