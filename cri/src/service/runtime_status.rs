//! `Status` and `RuntimeConfig`: is the node able to run pods, and what can its
//! handlers do.

use std::collections::HashMap;

use crate::config::CgroupDriver;
use crate::node::Node;
use crate::proto;

/// `network` is what the network's plugins say.
pub fn status(node: &Node, network: &anyhow::Result<()>, verbose: bool) -> proto::StatusResponse {
    let runtime = node.runtime(&node.config.default_handler).map(drop);
    let condition = |kind: &str, result: &anyhow::Result<()>, reason: &str| {
        let (reason, message) = match result {
            Ok(()) => (String::new(), String::new()),
            Err(err) => (reason.to_owned(), format!("{err:#}")),
        };
        proto::RuntimeCondition {
            r#type: kind.to_owned(),
            status: result.is_ok(),
            reason,
            message,
        }
    };
    let mut handlers = vec![handler(node, "", &node.config.default_handler)];
    for name in node.config.handlers.keys() {
        // One whose runtime is not installed is not offered.
        if node.runtime(name).is_ok() {
            handlers.push(handler(node, name, name));
        }
    }
    let mut info = HashMap::new();
    if verbose {
        if let Ok(text) = serde_json::to_string(&node.config) {
            info.insert("config".to_owned(), text);
        }
        let network = match node.cni.network() {
            Ok(list) => serde_json::to_string(&list).unwrap_or_default(),
            Err(err) => format!("{err:#}"),
        };
        info.insert("cniconfig".to_owned(), network);
        let devices = crate::cdi::devices(&node.config.cdi_spec_dirs);
        info.insert("cdi".to_owned(), serde_json::json!(devices).to_string());
    }
    proto::StatusResponse {
        status: Some(proto::RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", &runtime, "RuntimeNotInstalled"),
                condition("NetworkReady", network, "NetworkPluginNotReady"),
            ],
        }),
        info,
        runtime_handlers: handlers,
        features: Some(proto::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    }
}

fn handler(node: &Node, name: &str, resolved: &str) -> proto::RuntimeHandler {
    let sandboxed = node
        .config
        .handlers
        .get(resolved)
        .is_some_and(|h| h.sandboxed);
    proto::RuntimeHandler {
        name: name.to_owned(),
        features: Some(proto::RuntimeHandlerFeatures {
            // The runtime itself says so (`features`); idmapped mounts are
            // made by us, and were tried.
            recursive_read_only_mounts: !sandboxed && node.features(resolved).recursive_read_only,
            user_namespaces: node.user_namespaces(resolved).is_ok(),
        }),
    }
}

pub fn runtime_config(node: &Node) -> proto::RuntimeConfigResponse {
    let driver = match node.config.cgroup_driver {
        CgroupDriver::Cgroupfs => proto::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => proto::CgroupDriver::Systemd,
    };
    proto::RuntimeConfigResponse {
        linux: Some(proto::LinuxRuntimeConfiguration {
            cgroup_driver: driver.into(),
        }),
    }
}
