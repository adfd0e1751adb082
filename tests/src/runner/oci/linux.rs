//! `config-linux.md`: file systems, namespaces, devices, sysctl, propagation,
//! paths, personality.

use std::fs;
use std::process::{Child, Command};

use serde_json::{Value, json};

use super::config::add_mount;
use super::runtime::{Runtime, check, equal, failed, succeeded, until};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "linux/filesystems",
        "/proc, /sys, /dev/pts and /dev/shm are what is mounted there",
        file_systems,
    ),
    case(
        "linux/namespaces/pid",
        "a new pid namespace shows the container's processes only",
        pid_namespace,
    ),
    case(
        "linux/namespaces/network",
        "a new network namespace has its own interfaces",
        network_namespace,
    ),
    case(
        "linux/namespaces/network_inherited",
        "without a network namespace the runtime's is inherited",
        network_inherited,
    ),
    case(
        "linux/namespaces/network_path",
        "a network namespace by path is joined",
        network_path,
    ),
    case(
        "linux/namespaces/uts",
        "the host keeps its name",
        uts_namespace,
    ),
    case(
        "linux/namespaces/ipc",
        "a new IPC namespace is empty",
        ipc_namespace,
    ),
    case(
        "linux/namespaces/mount",
        "mounts of the container are not the host's",
        mount_namespace,
    ),
    case(
        "linux/namespaces/cgroup",
        "a new cgroup namespace has the container's cgroup as its root",
        cgroup_namespace,
    ),
    case(
        "linux/namespaces/user",
        "uid and gid mappings are those of the user namespace",
        user_namespace,
    ),
    case(
        "linux/namespaces/user_files",
        "files have the ids that the mappings give",
        user_files,
    ),
    case(
        "linux/namespaces/pid_path",
        "a pid namespace by path is joined",
        |rt| other_namespace(rt, "pid", "pid"),
    ),
    case(
        "linux/namespaces/ipc_path",
        "an IPC namespace by path is joined",
        |rt| other_namespace(rt, "ipc", "ipc"),
    ),
    case(
        "linux/namespaces/uts_path",
        "a UTS namespace by path is joined",
        |rt| other_namespace(rt, "uts", "uts"),
    ),
    case(
        "linux/namespaces/wrong_type",
        "a path of another type is an error",
        wrong_type,
    ),
    case(
        "linux/namespaces/missing_path",
        "a path that does not exist is an error",
        |rt| namespace_refused(rt, "network", "/no/such/ns"),
    ),
    case(
        "linux/namespaces/relative_path",
        "a path is absolute",
        |rt| namespace_refused(rt, "network", "proc/self/ns/net"),
    ),
    case(
        "linux/namespaces/no_namespace",
        "a path that is no namespace is an error",
        |rt| namespace_refused(rt, "network", "/etc/passwd"),
    ),
    case(
        "linux/namespaces/twice",
        "two namespaces of one type are an error",
        twice,
    ),
    case(
        "linux/namespaces/unknown",
        "an unknown type is an error",
        |rt| {
            rt.refuses(|c| add_namespace(c, json!({"type": "bogus"})))
                .map(|_| ())
        },
    ),
    case(
        "linux/devices/available",
        "devices are there, with mode and owner",
        devices,
    ),
    case("linux/devices/fifo", "a device of type p is a FIFO", fifo),
    case(
        "linux/devices/mismatch",
        "another file at the path of a device is an error",
        device_mismatch,
    ),
    case(
        "linux/devices/relative",
        "the path of a device is absolute",
        |rt| {
            rt.refuses(|c| {
                c["linux"]["devices"] =
                    json!([{"type": "c", "path": "dev/x", "major": 1, "minor": 3}])
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/devices/unknown_type",
        "an unknown type of device is an error",
        |rt| {
            rt.refuses(|c| {
                c["linux"]["devices"] =
                    json!([{"type": "z", "path": "/dev/x", "major": 1, "minor": 3}])
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/devices/default",
        "null, zero, full, random, urandom, tty and ptmx are there",
        default_devices,
    ),
    case(
        "linux/devices/work",
        "the default devices do what they are for",
        devices_work,
    ),
    case(
        "linux/sysctl/ipc",
        "settings of the IPC namespace are set",
        |rt| {
            equal(
                &rt.output("cat /proc/sys/kernel/shmmni", |c| {
                    c["linux"]["sysctl"] = json!({"kernel.shmmni": "99"})
                })?,
                "99",
            )
        },
    ),
    case(
        "linux/sysctl/net",
        "settings of the network namespace are set",
        |rt| {
            let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn";
            let sysctl = json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "77"});
            equal(
                &rt.output(script, |c| c["linux"]["sysctl"] = sysctl)?,
                "1\n77",
            )
        },
    ),
    case(
        "linux/sysctl/unknown",
        "a setting that does not exist is an error",
        |rt| {
            rt.refuses(|c| c["linux"]["sysctl"] = json!({"kernel.no_such_setting": "1"}))
                .map(|_| ())
        },
    ),
    case(
        "linux/sysctl/host",
        "a setting of the whole host is an error",
        |rt| {
            rt.refuses(|c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"}))
                .map(|_| ())
        },
    ),
    case(
        "linux/propagation/known",
        "shared, slave, private and unbindable are accepted",
        propagation,
    ),
    case(
        "linux/propagation/unknown",
        "another propagation is an error",
        |rt| {
            rt.refuses(|c| c["linux"]["rootfsPropagation"] = json!("bogus"))
                .map(|_| ())
        },
    ),
    case(
        "linux/masked/file",
        "masked files and directories can't be read",
        masked,
    ),
    case(
        "linux/masked/missing",
        "a masked path that is not there is no error",
        |rt| {
            equal(
                &rt.output("echo ran", |c| {
                    c["linux"]["maskedPaths"] = json!(["/no/such/path"])
                })?,
                "ran",
            )
        },
    ),
    case("linux/masked/relative", "a masked path is absolute", |rt| {
        rt.refuses(|c| c["linux"]["maskedPaths"] = json!(["etc/passwd"]))
            .map(|_| ())
    }),
    case(
        "linux/readonly/paths",
        "read-only paths can't be written",
        readonly,
    ),
    case(
        "linux/readonly/relative",
        "a read-only path is absolute",
        |rt| {
            rt.refuses(|c| c["linux"]["readonlyPaths"] = json!(["etc/passwd"]))
                .map(|_| ())
        },
    ),
    case(
        "linux/personality/linux",
        "personality LINUX is accepted",
        |rt| {
            equal(
                &rt.output("busybox uname -m", |c| {
                    c["linux"]["personality"] = json!({"domain": "LINUX"})
                })?,
                "x86_64",
            )
        },
    ),
    case(
        "linux/personality/linux32",
        "personality LINUX32 shows a 32-bit machine",
        |rt| {
            equal(
                &rt.output("busybox uname -m", |c| {
                    c["linux"]["personality"] = json!({"domain": "LINUX32"})
                })?,
                "i686",
            )
        },
    ),
    case(
        "linux/personality/unknown",
        "another personality is an error",
        |rt| {
            rt.refuses(|c| c["linux"]["personality"] = json!({"domain": "MINIX"}))
                .map(|_| ())
        },
    ),
    case(
        "linux/rdt/no_resctrl",
        "intelRdt without a mounted resctrl is an error",
        |rt| {
            rt.refuses(|c| {
                c["linux"]["intelRdt"] = json!({"closID": "x", "l3CacheSchema": "L3:0=f"})
            })
            .map(|_| ())
        },
    ),
];

fn add_namespace(config: &mut Value, namespace: Value) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(namespace);
    }
}

/// Takes the namespace of a type away, and puts another in its place.
fn set_namespace(config: &mut Value, kind: &str, namespace: Option<Value>) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|known| known["type"] != kind);
        namespaces.extend(namespace);
    }
}

fn file_systems(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "for f in /proc /sys /dev/pts /dev/shm; do \
                  busybox awk -v f=$f '$2 == f {print $3}' /proc/mounts; done";
    let out = rt.output(script, |c| {
        add_mount(
            c,
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}),
        );
    })?;
    equal(&out, "proc\nsysfs\ndevpts\ntmpfs")
}

fn pid_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("echo $$; ls /proc | grep -c '^[0-9]*$'", |_| ())?;
    let mut lines = out.lines();
    equal(lines.next().unwrap_or_default(), "1")?;
    let count: u32 = lines.next().unwrap_or_default().parse().unwrap_or(99);
    check(count <= 3, || out.clone())
}

fn network_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output(
        "grep -c : /proc/net/dev; grep -o 'lo:' /proc/net/dev",
        |_| (),
    )?;
    equal(&out, "1\nlo:")?;
    // The loopback interface is up.
    let script = "(echo through | nc -l -p 9999 127.0.0.1 > /dev/null &); busybox usleep 200000; \
                  nc 127.0.0.1 9999 < /dev/null";
    equal(&rt.output(script, |_| ())?, "through")
}

fn link(path: String) -> Result<String, String> {
    let target = fs::read_link(&path).map_err(|err| format!("{path}: {err}"))?;
    Ok(target.display().to_string())
}

fn network_inherited(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("sleep 1000", |c| set_namespace(c, "network", None))?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let found = link(format!("/proc/{}/ns/net", rt.pid(&id)?))?;
    equal(&found, &link("/proc/self/ns/net".to_owned())?)
}

/// A process of the host in namespaces of its own.
struct Stranger(Child);

impl Stranger {
    fn new(flag: &str, kind: &str) -> Result<Self, String> {
        let child = Command::new("unshare")
            .args([flag, "sleep", "1000"])
            .spawn();
        let stranger = Self(child.map_err(|err| err.to_string())?);
        let own = link(format!("/proc/self/ns/{kind}"))?;
        until("a namespace", || {
            link(stranger.path(kind)).is_ok_and(|found| found != own)
        })?;
        Ok(stranger)
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn network_path(rt: &Runtime<'_>) -> Result<(), String> {
    let stranger = Stranger::new("--net", "net")?;
    let path = stranger.path("net");
    let bundle = rt.bundle("sleep 1000", |c| {
        set_namespace(c, "network", Some(json!({"type": "network", "path": path})));
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    equal(
        &link(format!("/proc/{}/ns/net", rt.pid(&id)?))?,
        &link(path)?,
    )
}

fn other_namespace(rt: &Runtime<'_>, kind: &str, file: &str) -> Result<(), String> {
    let flag = format!("--{kind}");
    // A pid namespace is that of the children.
    let (file, stranger) = match kind {
        "pid" => {
            let child = Command::new("unshare")
                .args([&flag, "--fork", "sleep", "1000"])
                .spawn();
            (
                "pid_for_children",
                Stranger(child.map_err(|err| err.to_string())?),
            )
        }
        _ => (file, Stranger::new(&flag, file)?),
    };
    let own = link(format!("/proc/self/ns/{kind}"))?;
    let path = stranger.path(file);
    until("a namespace", || {
        link(path.clone()).is_ok_and(|found| found != own)
    })?;
    let bundle = rt.bundle("sleep 1000", |c| {
        c["hostname"] = Value::Null;
        set_namespace(c, kind, Some(json!({"type": kind, "path": path})));
    })?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let found = link(format!("/proc/{}/ns/{kind}", rt.pid(&id)?))?;
    let wanted = link(path)?;
    // The pid namespace's first process lives on beyond unshare(1).
    drop(stranger);
    equal(&found, &wanted)
}

fn uts_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let name = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let before = name();
    let out = rt.output("busybox hostname other; hostname", |c| {
        let caps = json!(["CAP_SYS_ADMIN"]);
        c["process"]["capabilities"] =
            json!({"bounding": caps, "permitted": caps, "effective": caps});
    })?;
    equal(&out, "other")?;
    equal(&name(), &before)
}

fn ipc_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output(
        "cat /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem | grep -v key; true",
        |_| (),
    )?;
    equal(&out, "")
}

fn mount_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(
        "mount -t tmpfs inner /tmp && echo up > /up; sleep 1000",
        |c| {
            let caps = json!(["CAP_SYS_ADMIN"]);
            c["process"]["capabilities"] =
                json!({"bounding": caps, "permitted": caps, "effective": caps});
        },
    )?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    rt.wait_for(&bundle, "up")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    check(!mounts.contains(&bundle), || {
        "a mount is on the host".into()
    })
}

fn cgroup_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output(
        "busybox cut -d: -f3 /proc/self/cgroup | busybox sort -u",
        |c| {
            add_namespace(c, json!({"type": "cgroup"}));
        },
    )?;
    equal(&out, "/")
}

fn user_mapped(c: &mut Value) {
    add_namespace(c, json!({"type": "user"}));
    for list in ["uidMappings", "gidMappings"] {
        c["linux"][list] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    }
    // Mounts of the host's /sys are not for other users.
    if let Some(mounts) = c["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys");
    }
}

/// The root of a bundle given to the user that is root inside.
fn give(rt: &Runtime<'_>, bundle: &str) -> Result<(), String> {
    let root = rt.in_root(bundle, "");
    let done = Command::new("chown")
        .arg("-hR")
        .arg("200000:200000")
        .arg(&root)
        .status();
    check(done.is_ok_and(|status| status.success()), || "chown".into())?;
    use std::os::unix::fs::PermissionsExt;
    for dir in root.ancestors().take(4) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
            .map_err(|err| err.to_string())?;
    }
    Ok(())
}

fn user_namespace(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(
        "id -u; cat /proc/self/uid_map /proc/self/gid_map | busybox tr -s ' '",
        user_mapped,
    )?;
    give(rt, &bundle)?;
    let done = succeeded(rt.run(&["run", "--bundle", &bundle, &rt.id("c")]))?;
    let map = " 0 200000 65536\n";
    equal(&done.stdout, &format!("0\n{map}{map}"))
}

fn user_files(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "busybox stat -c %u:%g /bin /host-owned; echo x > /made; \
                  busybox chown 33:44 /made; echo x > /host-owned || echo refused";
    let bundle = rt.bundle(script, user_mapped)?;
    give(rt, &bundle)?;
    fs::write(rt.in_root(&bundle, "host-owned"), "").map_err(|err| err.to_string())?;
    let done = succeeded(rt.run(&["run", "--bundle", &bundle, &rt.id("c")]))?;
    equal(&done.stdout, "0:0\n65534:65534\nrefused\n")?;
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(rt.in_root(&bundle, "made")).map_err(|err| err.to_string())?;
    equal(&format!("{}:{}", meta.uid(), meta.gid()), "200033:200044")
}

fn wrong_type(rt: &Runtime<'_>) -> Result<(), String> {
    let stranger = Stranger::new("--uts", "uts")?;
    for kind in ["network", "ipc"] {
        namespace_refused(rt, kind, &stranger.path("uts"))?;
    }
    Ok(())
}

fn namespace_refused(rt: &Runtime<'_>, kind: &str, path: &str) -> Result<(), String> {
    rt.refuses(|c| set_namespace(c, kind, Some(json!({"type": kind, "path": path}))))
        .map(|_| ())
}

fn twice(rt: &Runtime<'_>) -> Result<(), String> {
    for kind in ["pid", "ipc", "mount", "network", "uts"] {
        rt.refuses(|c| add_namespace(c, json!({"type": kind})))
            .map_err(|err| format!("{kind}: {err}"))?;
    }
    Ok(())
}

fn devices(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "busybox stat -c '%F %t:%T %a %u:%g' /dev/own /opt/elsewhere; echo x > /dev/own && echo works";
    let out = rt.output(script, |c| {
        c["linux"]["devices"] = json!([
            {"type": "c", "path": "/dev/own", "major": 1, "minor": 3, "fileMode": 0o620, "uid": 3, "gid": 4},
            {"type": "u", "path": "/opt/elsewhere", "major": 1, "minor": 5, "fileMode": 0o444},
        ]);
        c["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    })?;
    equal(
        &out,
        "character special file 1:3 620 3:4\ncharacter special file 1:5 444 0:0\nworks",
    )
}

fn fifo(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("busybox stat -c '%F %a' /dev/pipe", |c| {
        c["linux"]["devices"] = json!([{"type": "p", "path": "/dev/pipe", "fileMode": 0o600}]);
    })?;
    equal(&out, "fifo 600")
}

fn device_mismatch(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("true", |c| {
        c["linux"]["devices"] = json!([{"type": "c", "path": "/opt/file", "major": 1, "minor": 3}]);
    })?;
    let file = rt.in_root(&bundle, "opt/file");
    fs::create_dir_all(rt.in_root(&bundle, "opt")).map_err(|err| err.to_string())?;
    fs::write(&file, "a file").map_err(|err| err.to_string())?;
    failed(&rt.create(&rt.id("c"), &bundle))?;
    equal(&fs::read_to_string(file).unwrap_or_default(), "a file")
}

fn default_devices(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "for d in null zero full random urandom tty; do \
                  busybox stat -c '%n %t:%T %a' /dev/$d; done; busybox stat -L -c '%F %t:%T' /dev/ptmx";
    equal(
        &rt.output(script, |_| ())?,
        "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n\
         /dev/urandom 1:9 666\n/dev/tty 5:0 666\ncharacter special file 5:2",
    )
}

fn devices_work(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "cat /dev/null | wc -c; head -c 3 /dev/zero | busybox od -An -tx1; \
                  echo x > /dev/full || echo full; head -c 8 /dev/urandom | wc -c; head -c 8 /dev/random | wc -c";
    equal(&rt.output(script, |_| ())?, "0\n 00 00 00\nfull\n8\n8")
}

fn propagation(rt: &Runtime<'_>) -> Result<(), String> {
    for mode in [
        "shared",
        "slave",
        "private",
        "unbindable",
        "rshared",
        "rslave",
        "rprivate",
    ] {
        let out = rt.output("echo ran", |c| {
            c["linux"]["rootfsPropagation"] = json!(mode)
        });
        equal(&out.map_err(|err| format!("{mode}: {err}"))?, "ran")?;
    }
    Ok(())
}

fn masked(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle(
        "cat /etc/secret; ls /secrets; cat /proc/version; echo end",
        |c| {
            c["linux"]["maskedPaths"] = json!(["/etc/secret", "/secrets", "/proc/version"]);
        },
    )?;
    fs::write(rt.in_root(&bundle, "etc/secret"), "told\n").map_err(|err| err.to_string())?;
    fs::create_dir_all(rt.in_root(&bundle, "secrets/told")).map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "end\n")
}

fn readonly(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "echo x > /etc/kept || echo file; touch /keep/new || echo dir; echo x > /etc/free && echo other; cat /etc/kept";
    let bundle = rt.bundle(script, |c| {
        c["linux"]["readonlyPaths"] = json!(["/etc/kept", "/keep", "/no/such"]);
    })?;
    fs::write(rt.in_root(&bundle, "etc/kept"), "kept\n").map_err(|err| err.to_string())?;
    fs::create_dir_all(rt.in_root(&bundle, "keep")).map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "file\ndir\nother\nkept\n")
}
