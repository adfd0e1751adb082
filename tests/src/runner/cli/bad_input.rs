//! Errors of the caller: usage, bundles, configurations, executables.

use serde_json::{Value, json};

use super::quiet;
use crate::runner::bundle::{Ctx, check, expect, refused};

pub(super) fn usage_errors(ctx: &Ctx<'_>) -> Result<(), String> {
    for args in [
        &["no-such-command"][..],
        &["do", "--no-such-flag", "true"],
        &["--platform=none", "do", "true"],
        &["run"],
        &[],
    ] {
        let done = ctx.run(args);
        check(
            !done.ok() && done.code().is_some() && !done.stderr.is_empty(),
            || format!("{args:?}: {}", done.describe()),
        )?;
        check(!done.stderr.contains("panicked"), || done.describe())?;
    }
    Ok(())
}

/// Broken executables, each with a word its error should hold.
fn bad_elves(ctx: &Ctx<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let good = std::fs::read(&ctx.options.guest).unwrap_or_default();
    let head = |n: usize| good.get(..n).unwrap_or_default().to_vec();
    let change = |at: usize, bytes: &[u8]| {
        let mut b = good.clone();
        if let Some(slot) = b.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
        b
    };
    let mut noise = Vec::new();
    let mut x = 12345u64;
    for _ in 0..8192 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.push((x >> 33) as u8);
    }
    let mut noise_elf = noise.clone();
    noise_elf.splice(..64, head(64));
    vec![
        ("empty", Vec::new()),
        ("magic", b"\x7fELF".to_vec()),
        ("header", head(63)),
        ("truncated", head(4096)),
        ("noise", noise),
        ("noise-elf", noise_elf),
        ("aarch64", change(18, &[183, 0])),
        ("big-endian", change(5, &[2])),
        ("32-bit", change(4, &[1])),
        ("relocatable", change(16, &[1, 0])),
        ("many-headers", change(56, &[0xff, 0xff])),
        ("phoff", change(32, &[0xff; 8])),
        ("entry", change(24, &[0xff; 8])),
        ("no-interpreter", interpreted("/no/such/ld.so")),
        ("dir-interpreter", interpreted("/tmp")),
        ("text-interpreter", interpreted("/etc/passwd")),
        ("loop-interpreter", b"#!/bad/loop-interpreter\n".to_vec()),
    ]
}

/// A minimal dynamic executable that names this interpreter.
fn interpreted(interpreter: &str) -> Vec<u8> {
    let mut b = vec![0u8; 64 + 2 * 56];
    let put = |b: &mut Vec<u8>, at: usize, v: &[u8]| {
        if let Some(s) = b.get_mut(at..at + v.len()) {
            s.copy_from_slice(v);
        }
    };
    put(&mut b, 0, b"\x7fELF\x02\x01\x01");
    put(&mut b, 16, &[3, 0, 62, 0, 1]);
    put(&mut b, 32, &64u64.to_le_bytes());
    put(&mut b, 52, &[64, 0, 56, 0, 2, 0]);
    let end = b.len() as u64;
    let name = format!("{interpreter}\0").into_bytes();
    put(&mut b, 64, &3u32.to_le_bytes()); // PT_INTERP
    put(&mut b, 72, &end.to_le_bytes());
    put(&mut b, 96, &(name.len() as u64).to_le_bytes());
    put(&mut b, 104, &(name.len() as u64).to_le_bytes());
    put(&mut b, 120, &1u32.to_le_bytes()); // PT_LOAD
    put(&mut b, 124, &5u32.to_le_bytes());
    let len = end + name.len() as u64;
    put(&mut b, 152, &len.to_le_bytes());
    put(&mut b, 160, &len.to_le_bytes());
    put(&mut b, 168, &4096u64.to_le_bytes());
    b.extend(name);
    b
}

fn make_executable(path: &std::path::Path, bytes: &[u8]) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).map_err(|e| e.to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| e.to_string())
}

pub(super) fn elf_garbage(ctx: &Ctx<'_>) -> Result<(), String> {
    for (name, bytes) in bad_elves(ctx) {
        let path = ctx.dir.join(name);
        make_executable(&path, &bytes)?;
        let done = ctx.run(&["do", "--", &path.to_string_lossy()]);
        let code = done.code();
        // A jump to a wild entry point is the guest's own fault: a signal.
        let fine = matches!(code, Some(1 | 126 | 127)) && done.stderr.contains(name)
            || name == "entry" && code == Some(139)
            || name == "noise-elf" && code.is_some_and(|c| c > 125);
        check(fine, || format!("{name}: {}", done.describe()))?;
        check(!done.stderr.contains("panicked"), || done.describe())?;
    }
    ctx.nothing_left()
}

pub(super) fn bad_bundle(ctx: &Ctx<'_>) -> Result<(), String> {
    refused(
        &ctx.run_bundle("x", "/no/such/bundle"),
        &["/no/such/bundle"],
    )?;
    let empty = ctx.dir.join("empty");
    std::fs::create_dir_all(&empty).map_err(|e| e.to_string())?;
    refused(
        &ctx.run_bundle("x", &empty.to_string_lossy()),
        &["config.json"],
    )?;
    let bundle = ctx.bundle("b", &["/bin/true"], |_| ())?;
    let config = std::path::Path::new(&bundle).join("config.json");
    for text in [
        "",
        "not json",
        "[]",
        "{\"ociVersion\": 5}",
        "{\"process\":",
        "\u{0}\u{1}\u{2}",
    ] {
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        refused(&ctx.run_bundle("x", &bundle), &["config.json"])
            .map_err(|e| format!("{text:?}: {e}"))?;
    }
    std::fs::remove_file(&config).map_err(|e| e.to_string())?;
    std::fs::create_dir(&config).map_err(|e| e.to_string())?;
    refused(&ctx.run_bundle("x", &bundle), &["config.json"])?;
    ctx.nothing_left()
}

pub(super) fn bad_config(ctx: &Ctx<'_>) -> Result<(), String> {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change, &[&str])] = &[
        (
            "no-rootfs",
            |c| c["root"]["path"] = json!("missing-root"),
            &["missing-root"],
        ),
        (
            "file-rootfs",
            |c| c["root"]["path"] = json!("config.json"),
            &["config.json"],
        ),
        ("no-root", |c| c["root"] = Value::Null, &["root"]),
        ("no-process", |c| c["process"] = Value::Null, &["process"]),
        ("no-args", |c| c["process"]["args"] = json!([]), &["args"]),
        (
            "unknown-mount",
            |c| c["mounts"] = json!([{"destination": "/m", "type": "nosuchfs", "source": "x"}]),
            &["nosuchfs"],
        ),
        (
            "missing-source",
            |c| c["mounts"] = json!([{"destination": "/m", "type": "bind", "source": "/no/such/source", "options": ["bind"]}]),
            &["/no/such/source"],
        ),
        (
            "relative-mount",
            |c| c["mounts"] = json!([{"destination": "m", "type": "tmpfs", "source": "x", "options": ["nosuchoption=1"]}]),
            &[],
        ),
        (
            "unknown-rlimit",
            |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NO_SUCH", "hard": 1, "soft": 1}]),
            &["RLIMIT_NO_SUCH"],
        ),
        (
            "unknown-namespace",
            |c| c["linux"]["namespaces"] = json!([{"type": "nosuchns"}]),
            &["nosuchns"],
        ),
    ];
    for (name, change, words) in cases {
        let bundle = ctx.bundle(name, &["/bin/true"], *change)?;
        refused(&ctx.run_bundle(name, &bundle), words).map_err(|e| format!("{name}: {e}"))?;
    }
    ctx.nothing_left()
}

pub(super) fn bad_process(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("a", &["/bin/true"], |c| {
        c["process"]["cwd"] = json!("/no/such/cwd")
    })?;
    refused(&ctx.run_bundle("a", &bundle), &["/no/such/cwd"])?;
    let bundle = ctx.bundle("b", &["/bin/true"], |c| {
        c["process"]["cwd"] = json!("relative")
    })?;
    refused(&ctx.run_bundle("b", &bundle), &["relative"])?;
    let bundle = ctx.bundle("c", &["/no/such/program"], |_| ())?;
    refused(&ctx.run_bundle("c", &bundle), &["/no/such/program"]).map_err(|e| format!("c: {e}"))?;
    let bundle = ctx.bundle("d", &["/etc/passwd"], |_| ())?;
    refused(&ctx.run_bundle("d", &bundle), &["/etc/passwd"])?;
    let bundle = ctx.bundle("e", &["/bin/true"], |c| {
        c["process"]["user"] = json!({"uid": "root", "gid": 0})
    })?;
    refused(&ctx.run_bundle("e", &bundle), &["config.json"])?;
    let bundle = ctx.bundle("f", &["/bin/true"], |c| {
        c["process"]["user"] = json!({"uid": 4_294_967_295u64, "gid": 0})
    })?;
    refused(&ctx.run_bundle("f", &bundle), &["4294967295"])?;
    ctx.nothing_left()
}

pub(super) fn bad_ids(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bin/true"], |_| ())?;
    for id in [
        "",
        ".",
        "..",
        "a/b",
        "../../etc",
        "with space",
        "new\nline",
        &"x".repeat(2000),
    ] {
        let done = ctx.run_bundle(id, &bundle);
        check(
            done.code().is_some_and(|c| c != 0) && !done.stderr.is_empty(),
            || format!("{id:?}: {}", done.describe()),
        )?;
    }
    for command in [
        &["state", "none"][..],
        &["start", "none"],
        &["kill", "none"],
        &["delete", "none"],
        &["ps", "none"],
        &["exec", "none", "true"],
        &["debug", "--stacks", "none"],
    ] {
        refused(&ctx.run(command), &["none"]).map_err(|e| format!("{command:?}: {e}"))?;
    }
    expect(&ctx.run(&["delete", "--force", "none"]), 0, "")?;
    check(
        quiet(ctx, &["create", "--bundle", &bundle, "c"])?.ok(),
        || "create".into(),
    )?;
    refused(&ctx.run(&["kill", "c", "NOSUCHSIGNAL"]), &["NOSUCHSIGNAL"])?;
    refused(&ctx.run(&["kill", "c", "999"]), &["999"])?;
    check(ctx.run(&["delete", "--force", "c"]).ok(), || {
        "delete".into()
    })?;
    ctx.nothing_left()
}

pub(super) fn bad_elf_in_bundle(ctx: &Ctx<'_>) -> Result<(), String> {
    let bundle = ctx.bundle("b", &["/bad/x"], |_| ())?;
    let bad = std::path::Path::new(&bundle).join("rootfs/bad");
    std::fs::create_dir_all(&bad).map_err(|e| e.to_string())?;
    for (name, bytes) in bad_elves(ctx) {
        if name == "entry" || name == "noise-elf" {
            continue;
        }
        make_executable(&bad.join(name), &bytes)?;
        let bundle = ctx.bundle("b", &[&format!("/bad/{name}")], |_| ())?;
        refused(&ctx.run_bundle("x", &bundle), &[name]).map_err(|e| format!("{name}: {e}"))?;
    }
    ctx.nothing_left()
}
