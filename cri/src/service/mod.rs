//! The gRPC services: requests in, records and answers out.

pub mod archive;
pub mod convert;
pub mod image;
pub mod limits;
pub mod metrics;
pub mod runtime;
pub mod runtime_status;
