//! Generates the CRI messages and services from `proto/runtime-v1.proto`.

/// Messages that the metadata store keeps as JSON.
const STORED: &[&str] = &[
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "DNSConfig",
    "PortMapping",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "NamespaceOption",
    "UserNamespace",
    "IDMapping",
    "SELinuxOption",
    "Int64Value",
    "SecurityProfile",
    "LinuxContainerResources",
    "HugepageLimit",
    "WindowsPodSandboxConfig",
    "WindowsSandboxSecurityContext",
    "WindowsNamespaceOption",
    "ContainerConfig",
    "ContainerMetadata",
    "ImageSpec",
    "KeyValue",
    "Mount",
    "Device",
    "CDIDevice",
    "LinuxContainerConfig",
    "LinuxContainerSecurityContext",
    "Capability",
    "WindowsContainerConfig",
    "WindowsContainerResources",
    "WindowsCpuGroupAffinity",
    "WindowsContainerSecurityContext",
    "LinuxContainerUser",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["runtime-v1.proto", "images.proto"], ["proto"])?;
    let mut builder = tonic_prost_build::configure();
    for name in STORED {
        builder = builder.message_attribute(
            format!(".runtime.v1.{name}"),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]",
        );
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
