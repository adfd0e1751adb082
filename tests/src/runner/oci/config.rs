//! `config.md`: version, root, mounts, names, annotations, extensibility.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::runtime::{Runtime, check, equal, failed, succeeded};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "config/version/semver",
        "ociVersion is a version by SemVer 2.0.0",
        semver,
    ),
    case(
        "config/version/series",
        "all of the 1.x series is accepted",
        series,
    ),
    case(
        "config/version/major",
        "a version that is not supported is refused",
        |rt| rt.refuses(|c| c["ociVersion"] = json!("9.0.0")).map(|_| ()),
    ),
    case(
        "config/root/relative",
        "root.path is relative to the bundle",
        root_relative,
    ),
    case(
        "config/root/absolute",
        "root.path may be absolute",
        root_absolute,
    ),
    case(
        "config/root/missing",
        "a directory must exist at root.path",
        |rt| {
            rt.refuses(|c| c["root"]["path"] = json!("nothing"))
                .map(|_| ())
        },
    ),
    case(
        "config/root/file",
        "a file at root.path is an error",
        |rt| {
            rt.refuses(|c| c["root"]["path"] = json!("config.json"))
                .map(|_| ())
        },
    ),
    case(
        "config/root/readonly",
        "a read-only root can't be written",
        root_readonly,
    ),
    case(
        "config/root/writable",
        "the root is writable by default",
        root_writable,
    ),
    case(
        "config/mounts/order",
        "mounts are made in the listed order",
        mount_order,
    ),
    case(
        "config/mounts/relative_destination",
        "a relative destination is relative to /",
        relative_destination,
    ),
    case(
        "config/mounts/made",
        "a destination that is missing is made",
        destination_made,
    ),
    case(
        "config/mounts/bind",
        "bind and rbind in the options make a bind mount",
        bind,
    ),
    case(
        "config/mounts/bind_relative",
        "the source of a bind mount may be relative to the bundle",
        bind_relative,
    ),
    case("config/mounts/bind_file", "a file can be bound", bind_file),
    case(
        "config/mounts/bind_missing",
        "a source that does not exist is an error",
        bind_missing,
    ),
    case("config/mounts/ro", "ro makes a mount read-only", read_only),
    case(
        "config/mounts/rro",
        "rro makes a bind mount and those below it read-only",
        recursive_read_only,
    ),
    case("config/mounts/noexec", "noexec forbids execution", no_exec),
    case(
        "config/mounts/flags",
        "nosuid, nodev, noatime and nodiratime are set",
        flags,
    ),
    case(
        "config/mounts/later_wins",
        "of ro and rw the later option counts",
        later_wins,
    ),
    case(
        "config/mounts/data",
        "options of the file system are passed on",
        data,
    ),
    case(
        "config/mounts/tmpcopyup",
        "tmpcopyup copies the covered directory",
        copy_up,
    ),
    case(
        "config/mounts/unknown_type",
        "a type that is not supported is an error",
        unknown_type,
    ),
    case(
        "config/mounts/one_mapping",
        "of uidMappings and gidMappings both are given or none",
        one_mapping,
    ),
    case("config/hostname", "hostname is what programs see", |rt| {
        equal(
            &rt.output("hostname", |c| c["hostname"] = json!("mrs-dalloway"))?,
            "mrs-dalloway",
        )
    }),
    case(
        "config/domainname",
        "domainname is what programs see",
        |rt| {
            let script = "cat /proc/sys/kernel/domainname";
            equal(
                &rt.output(script, |c| c["domainname"] = json!("bloomsbury"))?,
                "bloomsbury",
            )
        },
    ),
    case(
        "config/annotations/unknown",
        "unknown annotations are no error and are in the state",
        annotations,
    ),
    case(
        "config/annotations/strings",
        "an annotation that is no string is an error",
        |rt| {
            rt.refuses(|c| c["annotations"] = json!({"a": 1}))
                .map(|_| ())
        },
    ),
    case(
        "config/annotations/empty_key",
        "an annotation without a key is an error",
        |rt| {
            rt.refuses(|c| c["annotations"] = json!({"": "value"}))
                .map(|_| ())
        },
    ),
    case(
        "config/extensibility/unknown",
        "unknown properties are ignored",
        unknown_properties,
    ),
    case(
        "config/values/type",
        "a value of the wrong type is an error",
        wrong_types,
    ),
    case(
        "config/process/required",
        "without a process nothing can be started",
        no_process,
    ),
];

/// Adds a mount behind the others.
pub fn add_mount(config: &mut Value, mount: Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

fn semver(rt: &Runtime<'_>) -> Result<(), String> {
    for version in ["1", "1.x", "one", ""] {
        rt.refuses(|c| c["ociVersion"] = json!(version))
            .map_err(|err| format!("{version:?}: {err}"))?;
    }
    Ok(())
}

fn series(rt: &Runtime<'_>) -> Result<(), String> {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.0"] {
        let out = rt.output("echo ran", |c| c["ociVersion"] = json!(version));
        equal(&out.map_err(|err| format!("{version}: {err}"))?, "ran")?;
    }
    Ok(())
}

fn root_relative(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("cat /mark", |c| {
        c["root"]["path"] = json!("other/../rootfs")
    })?;
    fs::create_dir_all(Path::new(&bundle).join("other")).map_err(|err| err.to_string())?;
    fs::write(rt.in_root(&bundle, "mark"), "here\n").map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "here\n")
}

fn root_absolute(rt: &Runtime<'_>) -> Result<(), String> {
    let other = rt.bundle("true", |_| ())?;
    let root = Path::new(&other).join("rootfs");
    fs::write(root.join("mark"), "there\n").map_err(|err| err.to_string())?;
    equal(
        &rt.output("cat /mark", |c| c["root"]["path"] = json!(root))?,
        "there",
    )
}

fn root_readonly(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "echo x > /file && echo written; mkdir /dir && echo made; \
                  grep -o '^[^ ]* / [^ ]* r[ow]' /proc/mounts | head -1 | grep -o 'r[ow]$'";
    equal(
        &rt.output(script, |c| c["root"]["readonly"] = json!(true))?,
        "ro",
    )
}

fn root_writable(rt: &Runtime<'_>) -> Result<(), String> {
    let change = |c: &mut Value| c["root"] = json!({"path": "rootfs"});
    equal(&rt.output("echo x > /file && cat /file", change)?, "x")
}

fn mount_order(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "busybox stat -f -c %b /a; echo; ls /a/b";
    let first = rt.ctx.dir.join("first");
    fs::create_dir_all(first.join("b/seen")).map_err(|err| err.to_string())?;
    let out = rt.output(script, |c| {
        add_mount(c, json!({"destination": "/a", "type": "tmpfs", "source": "t", "options": ["size=4k"]}));
        add_mount(c, json!({"destination": "/a", "type": "tmpfs", "source": "t", "options": ["size=64k"]}));
        add_mount(c, json!({"destination": "/a/b", "type": "bind", "source": first.join("b"), "options": ["bind"]}));
    })?;
    equal(&out, "16\n\nseen")
}

fn relative_destination(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("grep -o ' /rel/dir ' /proc/mounts", |c| {
        add_mount(
            c,
            json!({"destination": "rel/dir", "type": "tmpfs", "source": "t"}),
        );
    })?;
    equal(&out, " /rel/dir ")
}

fn destination_made(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("grep -o ' /new/deep/dir ' /proc/mounts", |c| {
        add_mount(
            c,
            json!({"destination": "/new/deep/dir", "type": "tmpfs", "source": "t"}),
        );
    })?;
    equal(&out, " /new/deep/dir ")
}

/// A directory of the host with one file.
fn volume(rt: &Runtime<'_>) -> Result<std::path::PathBuf, String> {
    let volume = rt.ctx.dir.join("volume");
    fs::create_dir_all(&volume).map_err(|err| err.to_string())?;
    fs::write(volume.join("file"), "on the host\n").map_err(|err| err.to_string())?;
    Ok(volume)
}

fn bind(rt: &Runtime<'_>) -> Result<(), String> {
    let volume = volume(rt)?;
    for (typ, option) in [
        (Some("bind"), "bind"),
        (Some("bind"), "rbind"),
        (Some("none"), "bind"),
        (None, "rbind"),
    ] {
        let out = rt.output("cat /v/file; echo inside > /v/new", |c| {
            let mut mount = json!({"destination": "/v", "source": volume, "options": [option]});
            if let Some(typ) = typ {
                mount["type"] = json!(typ);
            }
            add_mount(c, mount);
        })?;
        equal(&out, "on the host").map_err(|err| format!("{typ:?} {option}: {err}"))?;
        let new = volume.join("new");
        equal(&fs::read_to_string(&new).unwrap_or_default(), "inside\n")?;
        fs::remove_file(new).map_err(|err| err.to_string())?;
    }
    Ok(())
}

fn bind_relative(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("cat /v/file", |c| {
        add_mount(
            c,
            json!({"destination": "/v", "type": "bind", "source": "vol", "options": ["bind"]}),
        );
    })?;
    let volume = Path::new(&bundle).join("vol");
    fs::create_dir_all(&volume).map_err(|err| err.to_string())?;
    fs::write(volume.join("file"), "in the bundle\n").map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "in the bundle\n")
}

fn bind_file(rt: &Runtime<'_>) -> Result<(), String> {
    let file = volume(rt)?.join("file");
    let out = rt.output("cat /etc/bound; busybox stat -c %F /etc/bound", |c| {
        add_mount(c, json!({"destination": "/etc/bound", "type": "bind", "source": file, "options": ["bind"]}));
    })?;
    equal(&out, "on the host\nregular file")
}

fn bind_missing(rt: &Runtime<'_>) -> Result<(), String> {
    rt.refuses(|c| {
        add_mount(
            c,
            json!({"destination": "/v", "type": "bind", "source": "/no/such", "options": ["bind"]}),
        );
    })
    .map(|_| ())
}

fn read_only(rt: &Runtime<'_>) -> Result<(), String> {
    let volume = volume(rt)?;
    let script = "cat /v/file; echo x > /v/file && echo bind written; echo x > /t/file && echo tmpfs written";
    let out = rt.output(script, |c| {
        add_mount(c, json!({"destination": "/v", "type": "bind", "source": volume, "options": ["bind", "ro"]}));
        add_mount(c, json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro"]}));
    });
    // The last command of the script fails, as it must.
    let text = out.err().unwrap_or_default();
    check(
        text.contains("on the host") && !text.contains("written"),
        || text.clone(),
    )?;
    equal(
        &fs::read_to_string(volume.join("file")).unwrap_or_default(),
        "on the host\n",
    )
}

fn recursive_read_only(rt: &Runtime<'_>) -> Result<(), String> {
    let volume = volume(rt)?;
    let script = "echo x > /v/file || echo refused";
    let out = rt.output(script, |c| {
        add_mount(c, json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rro"]}));
    })?;
    equal(&out, "refused")
}

fn no_exec(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "busybox cp /bin/busybox /t/true; /t/true || echo $?";
    let out = rt.output(script, |c| {
        add_mount(
            c,
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["noexec"]}),
        );
    })?;
    equal(&out, "126")
}

fn flags(rt: &Runtime<'_>) -> Result<(), String> {
    let options = ["nosuid", "nodev", "noatime", "nodiratime"];
    let out = rt.output("grep ' /t ' /proc/mounts", |c| {
        add_mount(
            c,
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": options}),
        );
    })?;
    for option in options {
        check(out.contains(option), || format!("no {option}: {out}"))?;
    }
    Ok(())
}

fn later_wins(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("echo x > /t/file && cat /t/file", |c| {
        add_mount(
            c,
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro", "rw"]}),
        );
    })?;
    equal(&out, "x")
}

fn data(rt: &Runtime<'_>) -> Result<(), String> {
    let script = "busybox stat -c %a:%u:%g /t; busybox stat -f -c %b /t";
    let out = rt.output(script, |c| {
        add_mount(
            c,
            json!({"destination": "/t", "type": "tmpfs", "source": "t",
            "options": ["size=16k", "mode=1710", "uid=7", "gid=9"]}),
        );
    })?;
    equal(&out, "1710:7:9\n4")
}

fn copy_up(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("cat /data/file; echo x > /data/file; cat /data/file", |c| {
        add_mount(c, json!({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}));
    })?;
    let data = rt.in_root(&bundle, "data");
    fs::create_dir_all(&data).map_err(|err| err.to_string())?;
    fs::write(data.join("file"), "below\n").map_err(|err| err.to_string())?;
    let done = rt.run(&["run", "--bundle", &bundle, &rt.id("c")]);
    equal(&succeeded(done)?.stdout, "below\nx\n")?;
    equal(
        &fs::read_to_string(data.join("file")).unwrap_or_default(),
        "below\n",
    )
}

fn unknown_type(rt: &Runtime<'_>) -> Result<(), String> {
    rt.refuses(|c| {
        add_mount(
            c,
            json!({"destination": "/t", "type": "nosuchfs", "source": "t"}),
        )
    })
    .map(|_| ())
}

fn one_mapping(rt: &Runtime<'_>) -> Result<(), String> {
    let volume = volume(rt)?;
    rt.refuses(|c| {
        add_mount(
            c,
            json!({"destination": "/v", "type": "bind", "source": volume, "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
        );
    })
    .map(|_| ())
}

fn annotations(rt: &Runtime<'_>) -> Result<(), String> {
    let given = json!({"org.example.unknown": "x", "empty": "", "multi": "a\nb=c"});
    let bundle = rt.bundle("true", |c| c["annotations"] = given.clone())?;
    let id = rt.id("c");
    succeeded(rt.create(&id, &bundle))?;
    let state = rt.state(&id)?;
    for (key, value) in given.as_object().into_iter().flatten() {
        check(state["annotations"][key] == *value, || state.to_string())?;
    }
    Ok(())
}

fn unknown_properties(rt: &Runtime<'_>) -> Result<(), String> {
    let out = rt.output("echo ran", |c| {
        c["noSuchProperty"] = json!({"a": [1, 2]});
        c["process"]["noSuchProperty"] = json!(true);
        c["process"]["user"]["noSuchProperty"] = json!(1);
        c["root"]["noSuchProperty"] = json!("x");
        c["linux"]["noSuchProperty"] = json!(["x"]);
        c["mounts"][0]["noSuchProperty"] = json!("x");
    })?;
    equal(&out, "ran")
}

fn wrong_types(rt: &Runtime<'_>) -> Result<(), String> {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("ociVersion", |c| c["ociVersion"] = json!(1)),
        ("root", |c| c["root"] = json!("rootfs")),
        ("args", |c| c["process"]["args"] = json!("sh")),
        ("uid", |c| c["process"]["user"]["uid"] = json!("root")),
        ("uid below zero", |c| {
            c["process"]["user"]["uid"] = json!(-1)
        }),
        ("mounts", |c| c["mounts"] = json!({"destination": "/x"})),
    ];
    for (what, change) in changes {
        rt.refuses(change).map_err(|err| format!("{what}: {err}"))?;
    }
    Ok(())
}

fn no_process(rt: &Runtime<'_>) -> Result<(), String> {
    let bundle = rt.bundle("true", |c| {
        if let Some(config) = c.as_object_mut() {
            config.remove("process");
        }
    })?;
    let id = rt.id("c");
    let made = rt.create(&id, &bundle);
    if made.ok() {
        return failed(&rt.run(&["start", &id]));
    }
    failed(&made)
}
