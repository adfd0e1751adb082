//! The security context.

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::security_profile::ProfileType;
use runsc_cri::proto::*;

use super::Case;
use super::pods::security;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![
        case!("security/users", users),
        case!("security/capabilities", capabilities),
        case!("security/read-only", read_only),
        case!("security/no-new-privileges", no_new_privileges),
        case!("security/seccomp", seccomp),
        case!("security/devices", devices),
        case!("security/cdi", cdi, own),
    ]
}

/// Runs one container with this change and returns a shell line's output.
async fn with(
    env: &Shared,
    line: &str,
    change: impl FnOnce(&mut ContainerConfig),
) -> Result<String> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    change(&mut container);
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let text = env.sh(&id, line).await?;
    env.remove_pod(&pod).await?;
    Ok(text)
}

async fn users(env: Shared) -> Result<()> {
    let number = |value| Some(Int64Value { value });
    let line = "echo $(id -u) $(id -g) $(id -G)";
    let plain = with(&env, line, |_| {}).await?;
    ensure!(plain.starts_with("0 0 0"), "{plain}");
    let by_id = with(&env, line, |c| {
        security(c).run_as_user = number(1234);
        security(c).run_as_group = number(5678);
        security(c).supplemental_groups = vec![90, 91];
    })
    .await?;
    ensure!(by_id == "1234 5678 5678 90 91", "{by_id}");
    // Groups of the image's database, unless the policy is strict.
    let by_name = with(&env, line, |c| {
        security(c).run_as_username = "web".into();
    })
    .await?;
    ensure!(by_name == "33 34 34 4", "{by_name}");
    if env.own {
        let strict = with(&env, line, |c| {
            security(c).run_as_username = "web".into();
            security(c).supplemental_groups = vec![77];
            security(c).supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
        })
        .await?;
        ensure!(strict == "33 34 34 77", "{strict}");
    }
    let missing = with(&env, line, |c| {
        security(c).run_as_username = "nobody-knows".into();
    });
    ensure!(missing.await.is_err(), "an unknown user");
    env.clean().await
}

async fn capabilities(env: Shared) -> Result<()> {
    let bits = async |change: fn(&mut Capability)| {
        let text = with(&env, "grep CapEff /proc/self/status", |c| {
            change(security(c).capabilities.get_or_insert_default());
        })
        .await?;
        let hex = text
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned();
        anyhow::Ok(u64::from_str_radix(&hex, 16)?)
    };
    const CHOWN: u64 = 1 << 0;
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let default = bits(|_| {}).await?;
    ensure!(
        default & CHOWN != 0 && default & (SYS_ADMIN | NET_ADMIN) == 0,
        "{default:x}"
    );
    let added = bits(|c| c.add_capabilities = vec!["NET_ADMIN".into()]).await?;
    ensure!(added & NET_ADMIN != 0, "{added:x}");
    let none = bits(|c| c.drop_capabilities = vec!["ALL".into()]).await?;
    ensure!(none == 0, "{none:x}");
    let one = bits(|c| {
        c.drop_capabilities = vec!["ALL".into()];
        c.add_capabilities = vec!["CHOWN".into()];
    })
    .await?;
    ensure!(one == CHOWN, "{one:x}");
    let all = bits(|c| {
        c.add_capabilities = vec!["ALL".into()];
        c.drop_capabilities = vec!["SYS_ADMIN".into()];
    })
    .await?;
    ensure!(all & NET_ADMIN != 0 && all & SYS_ADMIN == 0, "{all:x}");
    Ok(())
}

async fn read_only(env: Shared) -> Result<()> {
    let line = "touch /file 2>/dev/null && echo written || echo refused";
    ensure!(with(&env, line, |_| {}).await? == "written");
    let text = with(&env, line, |c| security(c).readonly_rootfs = true).await?;
    ensure!(text == "refused", "{text}");
    let text = with(
        &env,
        "wc -c < /proc/version; test -w /proc/sys/kernel/domainname && echo w || echo r",
        |c| {
            security(c).masked_paths = vec!["/proc/version".into()];
            security(c).readonly_paths = vec!["/proc/sys".into()];
        },
    )
    .await?;
    ensure!(text.starts_with('0'), "{text:?}");
    let text = with(
        &env,
        "echo x 2>/dev/null > /proc/sys/kernel/domainname && echo w || echo r",
        |c| {
            security(c).readonly_paths = vec!["/proc/sys".into()];
        },
    )
    .await?;
    ensure!(text == "r", "{text:?}");
    Ok(())
}

async fn no_new_privileges(env: Shared) -> Result<()> {
    let line = "grep NoNewPrivs /proc/self/status";
    let off = with(&env, line, |_| {}).await?;
    ensure!(off.ends_with('0'), "{off}");
    let on = with(&env, line, |c| security(c).no_new_privs = true).await?;
    ensure!(on.ends_with('1'), "{on}");
    Ok(())
}

async fn seccomp(env: Shared) -> Result<()> {
    let line = "grep Seccomp: /proc/self/status";
    let profile = |kind: ProfileType, path: &str| SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: path.to_owned(),
    };
    if !env.sandboxed() {
        let default = profile(ProfileType::RuntimeDefault, "");
        let text = with(&env, line, |c| security(c).seccomp = Some(default)).await?;
        ensure!(text.ends_with('2'), "{text}");
        let none = profile(ProfileType::Unconfined, "");
        let text = with(&env, line, |c| security(c).seccomp = Some(none)).await?;
        ensure!(text.ends_with('0'), "{text}");
        let own = env.dir.join("profile.json");
        std::fs::write(
            &own,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#,
        )?;
        let own = profile(ProfileType::Localhost, &own.display().to_string());
        let line = "mkdir /tmp/x 2>/dev/null && echo made || echo refused";
        let text = with(&env, line, |c| security(c).seccomp = Some(own)).await?;
        ensure!(text == "refused", "{text}");
    }
    let missing = profile(ProfileType::Localhost, "/no/such/profile.json");
    let result = with(&env, line, |c| security(c).seccomp = Some(missing)).await;
    ensure!(result.is_err(), "a profile that is not there");
    env.clean().await
}

async fn devices(env: Shared) -> Result<()> {
    if env.sandboxed() {
        return sandboxed_devices(&env).await;
    }
    let line = "test -c /dev/suite-null && echo x > /dev/suite-null && echo there || echo none";
    let device = |permissions: &str| Device {
        container_path: "/dev/suite-null".into(),
        host_path: "/dev/null".into(),
        permissions: permissions.into(),
    };
    ensure!(with(&env, line, |_| {}).await? == "none");
    let text = with(&env, line, |c| c.devices = vec![device("rw")]).await?;
    ensure!(text == "there", "{text}");
    let missing = Device {
        host_path: "/dev/no-such-device".into(),
        ..device("rw")
    };
    ensure!(
        with(&env, line, |c| c.devices = vec![missing])
            .await
            .is_err()
    );
    env.clean().await
}

/// A sandbox has devices of its own under any name, and none of the host's.
async fn sandboxed_devices(env: &Shared) -> Result<()> {
    let device = |host: &str| Device {
        container_path: "/dev/suite-device".into(),
        host_path: host.into(),
        permissions: "rw".into(),
    };
    let line = "head -c 3 /dev/suite-device | wc -c";
    let text = with(env, line, |c| c.devices = vec![device("/dev/zero")]).await?;
    ensure!(text == "3", "{text}");
    let refused = with(env, line, |c| c.devices = vec![device("/dev/kmsg")]).await;
    let message = format!("{:#}", refused.err().context("given")?);
    ensure!(
        message.contains("/dev/kmsg") && message.contains("sandbox"),
        "{message}"
    );
    env.clean().await
}

/// Devices by the Container Device Interface.
async fn cdi(env: Shared) -> Result<()> {
    let dir = env.dir.join("cdi");
    let (data, hooked) = (dir.join("data"), dir.join("hooked"));
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("file"), "of the vendor\n")?;
    std::fs::write(
        dir.join("suite.yaml"),
        format!(
            "cdiVersion: 0.6.0\nkind: suite.test/device\n\
             containerEdits:\n  env: [COMMON=yes]\n\
             devices:\n\
             - name: files\n  containerEdits:\n    env: [FILES=yes]\n    mounts:\n    \
             - hostPath: {data}\n      containerPath: /opt/vendor\n      \
             options: [ro, rbind, rprivate]\n\
             - name: node\n  containerEdits:\n    deviceNodes:\n    \
             - path: /dev/suite-cdi\n      hostPath: /dev/null\n      permissions: rw\n    \
             hooks:\n    - hookName: createRuntime\n      path: /bin/sh\n      \
             args: [sh, -c, \"cat > {hooked}\"]\n",
            data = data.display(),
            hooked = hooked.display(),
        ),
    )?;
    let named = |names: &[&str]| -> Vec<CdiDevice> {
        let device = |name: &&str| CdiDevice {
            name: format!("suite.test/device={name}"),
        };
        names.iter().map(device).collect()
    };
    let line =
        "echo $COMMON $FILES; cat /opt/vendor/file; touch /opt/vendor/x 2>/dev/null || echo ro";
    let text = with(&env, line, |c| c.cdi_devices = named(&["files"])).await?;
    ensure!(text == "yes yes\nof the vendor\nro", "{text:?}");
    let line = "test -c /dev/suite-cdi && echo x > /dev/suite-cdi && echo $COMMON$FILES";
    let node = with(&env, line, |c| {
        c.cdi_devices = named(&["node"]);
        let name = "suite.test/device=files".to_owned();
        c.annotations.insert("cdi.k8s.io/suite".into(), name);
    });
    if env.sandboxed() {
        let message = format!("{:#}", node.await.err().context("given")?);
        ensure!(message.contains("/dev/suite-cdi"), "{message}");
    } else {
        let text = node.await?;
        ensure!(text == "yesyes", "{text:?}");
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&hooked)?)?;
        ensure!(state.get("pid").is_some(), "{state}");
    }
    for wrong in ["suite.test/device=other", "nonsense"] {
        let name = wrong.to_owned();
        let refused = with(&env, line, |c| c.cdi_devices = vec![CdiDevice { name }]).await;
        let message = format!("{:#}", refused.err().context("given")?);
        ensure!(message.contains(wrong), "{message}");
    }
    env.clean().await
}
