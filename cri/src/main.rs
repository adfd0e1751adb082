//! `runsc-cri`: the Kubernetes CRI server and its helper processes.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    match runsc_cri::cli::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("runsc-cri: {err:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
