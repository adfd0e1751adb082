//! Place of the Kubernetes CRI server; nothing of it is built yet.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    eprintln!("runsc-cri: the CRI server is not part of this version");
    std::process::ExitCode::FAILURE
}
