//! Generated messages and services of `runtime.v1`.
#![expect(clippy::all, reason = "generated code")]
tonic::include_proto!("runtime.v1");
