//! `runsc-cri-pod`: the supervisor of a pod as a program of its own. There is one
//! process per pod, and a small program takes a fraction of the memory that the
//! same code takes as part of `runsc-cri`, which does its work where it is not
//! installed beside it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match runsc_cri::supervisor::command(&args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("runsc-cri-pod: {err:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
