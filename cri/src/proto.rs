//! Generated messages and services of `runtime.v1`.
#![expect(clippy::all, reason = "generated code")]
tonic::include_proto!("runtime.v1");

/// What `runsc-cri image` asks for beyond the CRI.
pub mod images {
    tonic::include_proto!("runsc.cri.v1");
}
