//! What a pod asks of plugins with the capability of that name: host ports,
//! bandwidth, DNS, address ranges.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::proto::{PodSandboxConfig, Protocol};

pub fn capabilities(pod: &PodSandboxConfig, pod_cidr: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let ports: Vec<Value> = pod
        .port_mappings
        .iter()
        .filter(|p| p.host_port > 0)
        .map(|p| {
            json!({
                "hostPort": p.host_port,
                "containerPort": p.container_port,
                "protocol": match p.protocol() {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                },
                "hostIP": p.host_ip,
            })
        })
        .collect();
    if !ports.is_empty() {
        found.insert("portMappings".into(), json!(ports));
    }
    let rate = |direction: &str| {
        let text = pod
            .annotations
            .get(&format!("kubernetes.io/{direction}-bandwidth"))?;
        parse_rate(text)
    };
    let (ingress, egress) = (rate("ingress"), rate("egress"));
    if ingress.is_some() || egress.is_some() {
        let mut bandwidth = Map::new();
        // A burst as large as the plugin takes, since none is given.
        const BURST: u64 = (1 << 31) - 1;
        for (name, value) in [("ingress", ingress), ("egress", egress)] {
            if let Some(value) = value {
                bandwidth.insert(format!("{name}Rate"), json!(value));
                bandwidth.insert(format!("{name}Burst"), json!(BURST));
            }
        }
        found.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    if let Some(dns) = &pod.dns_config {
        found.insert(
            "dns".into(),
            json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}),
        );
    }
    if !pod_cidr.is_empty() {
        let ranges: Vec<Value> = pod_cidr
            .split(',')
            .map(|subnet| json!([{ "subnet": subnet }]))
            .collect();
        found.insert("ipRanges".into(), json!(ranges));
    }
    found
}

/// A Kubernetes quantity (`10M`, `1Gi`) in bits per second.
fn parse_rate(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("10M"), Some(10_000_000));
        assert_eq!(parse_rate("1Ki"), Some(1024));
        assert_eq!(parse_rate("fast"), None);
    }
}
