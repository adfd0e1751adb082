//! Rules of the workspace that a compiler does not check: which crate may
//! depend on which, where `unsafe` may stand, what lies at the top level.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn metadata() -> serde_json::Value {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(top())
        .output()
        .expect("cargo can be run");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON")
}

/// Internal crates and the internal crates each may depend on (normal and
/// build dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("syscall-tables", &[]),
    ("gofer-proto", &["syscall-tables"]),
    // Through the protocol, whose types are those of the tables.
    ("gofer", &["gofer-proto", "syscall-tables"]),
    ("sentry-platform", &["syscall-tables"]),
    (
        "sentry-kernel",
        &["sentry-platform", "gofer-proto", "syscall-tables"],
    ),
    (
        "runsc",
        &[
            "syscall-tables",
            "gofer-proto",
            "gofer",
            "sentry-platform",
            "sentry-kernel",
        ],
    ),
    ("runsc-cri", &[]),
    ("tests", &[]),
    ("bench", &[]),
];

/// Crates without `#![forbid(unsafe_code)]`: the platform, and those with a
/// small, listed part.
const MAY_HAVE_UNSAFE: &[&str] = &["sentry-platform", "gofer", "runsc", "tests"];

/// Files with `unsafe` in crates that have only a small part of it.
const UNSAFE_FILES: &[(&str, usize)] = &[("gofer", 4), ("runsc", 8)];

fn packages() -> Vec<serde_json::Value> {
    metadata()["packages"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn name(package: &serde_json::Value) -> &str {
    package["name"].as_str().unwrap_or("")
}

fn folder(package: &serde_json::Value) -> PathBuf {
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or(""));
    manifest.parent().map(Path::to_owned).unwrap_or_default()
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let packages = packages();
    let internal: BTreeSet<&str> = packages.iter().map(name).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in &packages {
        let Some(may) = allowed.get(name(package)) else {
            breaches.push(format!("{} is not in the table", name(package)));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = name(dependency);
            // Tests may use anything.
            if dependency["kind"].as_str() == Some("dev") || !internal.contains(to) {
                continue;
            }
            if !may.contains(&to) {
                breaches.push(format!("{} must not depend on {to}", name(package)));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn kernel_crates_forbid_unsafe_code() {
    for package in packages() {
        if MAY_HAVE_UNSAFE.contains(&name(&package)) {
            continue;
        }
        let source = folder(&package).join("src");
        let root = [source.join("lib.rs"), source.join("main.rs")]
            .into_iter()
            .find(|root| root.exists())
            .unwrap_or(source);
        let text = std::fs::read_to_string(&root).unwrap_or_default();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{} lacks #![forbid(unsafe_code)]",
            root.display()
        );
    }
}

#[test]
fn unsafe_parts_stay_small_and_listed() {
    for (crate_name, max_files) in UNSAFE_FILES {
        let packages = packages();
        let Some(package) = packages.iter().find(|p| name(p) == *crate_name) else {
            continue;
        };
        let mut files = Vec::new();
        rust_files(&folder(package).join("src"), &mut files);
        // A nested crate counts for itself.
        let with: Vec<PathBuf> = files
            .into_iter()
            .filter(|f| {
                std::fs::read_to_string(f)
                    .unwrap_or_default()
                    .lines()
                    .any(|l| {
                        let l = l.trim_start();
                        !l.starts_with("//")
                            && (l.contains("unsafe {")
                                || l.contains("unsafe fn")
                                || l.contains("unsafe impl"))
                    })
            })
            .collect();
        assert!(
            with.len() <= *max_files,
            "unsafe in too many files of {crate_name}: {with:#?}"
        );
    }
}

#[test]
fn unsafe_blocks_say_why_they_are_sound() {
    // clippy::undocumented_unsafe_blocks is denied for the whole workspace.
    let text = std::fs::read_to_string(top().join("Cargo.toml")).unwrap_or_default();
    for lint in [
        "unsafe_op_in_unsafe_fn = \"deny\"",
        "undocumented_unsafe_blocks = \"deny\"",
        "unwrap_used = \"deny\"",
    ] {
        assert!(
            text.contains(lint),
            "{lint} is missing in [workspace.lints]"
        );
    }
    for package in packages() {
        if name(&package) == "tests" {
            continue;
        }
        let manifest =
            std::fs::read_to_string(folder(&package).join("Cargo.toml")).unwrap_or_default();
        let lints = manifest.split("[lints]").nth(1).unwrap_or("");
        assert!(
            lints.trim_start().starts_with("workspace = true"),
            "{} does not take the workspace's lints",
            name(&package)
        );
    }
}

#[test]
fn release_profile_keeps_overflow_checks() {
    let text = std::fs::read_to_string(top().join("Cargo.toml")).unwrap_or_default();
    let release = text.split("[profile.release]").nth(1).unwrap_or("");
    for line in [
        "overflow-checks = true",
        "panic = \"abort\"",
        "lto = \"thin\"",
    ] {
        assert!(
            release.contains(line),
            "{line} is missing in [profile.release]"
        );
    }
}

#[test]
fn top_level_holds_what_the_design_names() {
    let allowed: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "rust-toolchain.toml",
        "deny.toml",
        "docs",
        "syscall-tables",
        "sentry",
        "gofer",
        "runsc",
        "cri",
        "tests",
        "target",
    ]
    .into();
    for entry in std::fs::read_dir(top()).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        assert!(
            file.starts_with('.') || allowed.contains(file.as_str()),
            "{file} does not belong at the top level"
        );
    }
}

#[test]
fn external_dependencies_are_declared_once_with_a_reason() {
    let text = std::fs::read_to_string(top().join("Cargo.toml")).unwrap_or_default();
    let section = text
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap_or("")
        .split("\n[")
        .next()
        .unwrap_or("");
    let mut commented = false;
    let mut without = Vec::new();
    for line in section.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            commented = true;
        } else if line.is_empty() {
            commented = false;
        } else if let Some((crate_name, _)) = line.split_once(" = ")
            && !commented
            && !line.contains("path = ")
            && !crate_name.starts_with("serde")
        {
            without.push(crate_name.to_owned());
        }
    }
    assert!(
        without.is_empty(),
        "no reason given in Cargo.toml for {without:?}"
    );
}

#[test]
fn failing_suites_are_explained_in_the_compatibility_document() {
    let read = |path: &str| std::fs::read_to_string(top().join(path)).unwrap_or_default();
    let known = read("tests/known-failures.txt");
    let document = read("docs/COMPATIBILITY.md");
    let listed: BTreeSet<&str> = known
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|name| name.starts_with("cpython/") || name.starts_with("stress-ng/"))
        .collect();
    let explained: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("cpython/") || name.starts_with("stress-ng/"))
        .collect();
    assert_eq!(listed, explained);
}

#[test]
fn programs_are_in_the_compatibility_document() {
    let document = std::fs::read_to_string(top().join("docs/COMPATIBILITY.md")).unwrap_or_default();
    for entry in std::fs::read_dir(top().join("tests/programs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".sh") {
            assert!(
                document.contains(&format!("| `{name}`")),
                "tests/programs/{file} is not in docs/COMPATIBILITY.md"
            );
        }
    }
}
