//! Pod and container metrics, named as cAdvisor has them.

use crate::proto::{
    ContainerMetrics, ContainerStats, Metric, MetricDescriptor, MetricType, PodSandboxMetrics,
    PodSandboxStats, UInt64Value,
};

type Read = fn(&ContainerStats) -> Option<&UInt64Value>;

struct Entry {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: Read,
}

/// CPU is in nanoseconds here: values are whole numbers on the wire.
const CONTAINER: &[Entry] = &[
    Entry {
        name: "container_cpu_usage_nanoseconds_total",
        help: "CPU time used.",
        kind: MetricType::Counter,
        read: |s| s.cpu.as_ref()?.usage_core_nano_seconds.as_ref(),
    },
    Entry {
        name: "container_memory_working_set_bytes",
        help: "Memory in use that can't be reclaimed easily.",
        kind: MetricType::Gauge,
        read: |s| s.memory.as_ref()?.working_set_bytes.as_ref(),
    },
    Entry {
        name: "container_memory_usage_bytes",
        help: "Memory in use, with caches.",
        kind: MetricType::Gauge,
        read: |s| s.memory.as_ref()?.usage_bytes.as_ref(),
    },
    Entry {
        name: "container_memory_rss",
        help: "Anonymous memory in bytes.",
        kind: MetricType::Gauge,
        read: |s| s.memory.as_ref()?.rss_bytes.as_ref(),
    },
    Entry {
        name: "container_fs_usage_bytes",
        help: "Bytes of the writable layer.",
        kind: MetricType::Gauge,
        read: |s| s.writable_layer.as_ref()?.used_bytes.as_ref(),
    },
];

const NETWORK: &[(&str, &str)] = &[
    ("container_network_receive_bytes_total", "Bytes received."),
    ("container_network_transmit_bytes_total", "Bytes sent."),
];

pub fn descriptors() -> Vec<MetricDescriptor> {
    let labels = |extra: &[&str]| {
        ["id", "name"]
            .iter()
            .chain(extra)
            .map(|l| (*l).to_owned())
            .collect()
    };
    let mut all: Vec<MetricDescriptor> = CONTAINER
        .iter()
        .map(|e| MetricDescriptor {
            name: e.name.to_owned(),
            help: e.help.to_owned(),
            label_keys: labels(&[]),
        })
        .collect();
    all.extend(NETWORK.iter().map(|(name, help)| MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: labels(&["interface"]),
    }));
    all
}

pub fn of_pod(stats: &PodSandboxStats) -> PodSandboxMetrics {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let linux = stats.linux.clone().unwrap_or_default();
    let name = attributes.metadata.unwrap_or_default().name;
    let mut metrics = Vec::new();
    if let Some(network) = &linux.network {
        for interface in network.default_interface.iter().chain(&network.interfaces) {
            let values = [&interface.rx_bytes, &interface.tx_bytes];
            for ((metric, _), value) in NETWORK.iter().zip(values) {
                metrics.push(Metric {
                    name: (*metric).to_owned(),
                    timestamp: network.timestamp,
                    metric_type: MetricType::Counter.into(),
                    label_values: vec![attributes.id.clone(), name.clone(), interface.name.clone()],
                    value: *value,
                });
            }
        }
    }
    PodSandboxMetrics {
        pod_sandbox_id: attributes.id,
        metrics,
        container_metrics: linux.containers.iter().map(of_container).collect(),
    }
}

fn of_container(stats: &ContainerStats) -> ContainerMetrics {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let name = attributes.metadata.unwrap_or_default().name;
    let timestamp = crate::time::now_ns();
    ContainerMetrics {
        metrics: CONTAINER
            .iter()
            .filter_map(|entry| {
                Some(Metric {
                    name: entry.name.to_owned(),
                    timestamp,
                    metric_type: entry.kind.into(),
                    label_values: vec![attributes.id.clone(), name.clone()],
                    value: Some(*(entry.read)(stats)?),
                })
            })
            .collect(),
        container_id: attributes.id,
    }
}
