//! Builds what runs inside stub processes: the stub binary and the guest's
//! vDSO. Both are freestanding and built with the same compiler for the same
//! target, whatever the profile of the build.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = Path::new("src/stub");
    println!("cargo::rerun-if-changed=src/stub");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    rustc()
        .args(["--crate-name", "stub", "--crate-type", "bin"])
        // The text lies far above 2 GiB.
        .args(["-C", "relocation-model=static", "-C", "code-model=large"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args(["-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
        .args(["-C", "link-arg=-Wl,--build-id=none"])
        .arg("-C")
        .arg(format!(
            "link-arg=-Wl,-T,{}",
            source.join("stub.ld").display()
        ))
        .arg("-o")
        .arg(out.join("stub"))
        .arg(source.join("main.rs"))
        .run();

    let version_script = source.join("vdso.map");
    let linker_script = source.join("vdso.ld");
    rustc()
        .args(["--crate-name", "vdso", "--crate-type", "bin"])
        // Not what it becomes, but what keeps `-pie` away from `-shared`.
        .args(["-C", "relocation-model=static"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args(["-C", "link-arg=-shared"])
        .args(["-C", "link-arg=-Wl,--build-id=none,-soname=linux-vdso.so.1"])
        .args(["-C", "link-arg=-Wl,--hash-style=both,-Bsymbolic"])
        .arg("-C")
        .arg(format!(
            "link-arg=-Wl,--version-script={},-T,{}",
            version_script.display(),
            linker_script.display()
        ))
        .arg("-o")
        .arg(out.join("vdso.so"))
        .arg(source.join("vdso.rs"))
        .run();
}

/// The compiler with the options that both artefacts share.
fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    command
        .args(["--edition", "2024", "--target"])
        .arg(env::var("TARGET").expect("cargo sets TARGET"))
        .args([
            "-C",
            "relro-level=off",
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
        ])
        .args(["-C", "debuginfo=0", "-C", "strip=none"])
        .args(["-C", "overflow-checks=off", "-C", "debug-assertions=off"]);
    command
}

trait Run {
    fn run(&mut self);
}

impl Run for Command {
    fn run(&mut self) {
        let status = self.status().expect("the compiler can be started");
        assert!(status.success(), "{self:?} failed: {status}");
    }
}
