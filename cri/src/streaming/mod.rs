//! Exec, attach and port-forward for the kubelet.

use anyhow::Result;
use tonic::Status;

use crate::proto::{AttachRequest, ExecRequest, PortForwardRequest};
use crate::store::{Container, Pod};

#[derive(Debug, Default)]
pub struct Sessions {}

impl Sessions {
    pub fn exec(&self, _container: &Container, _request: ExecRequest) -> Result<String> {
        Err(Status::unimplemented("streaming exec").into())
    }

    pub fn attach(&self, _container: &Container, _request: AttachRequest) -> Result<String> {
        Err(Status::unimplemented("attach").into())
    }

    pub fn port_forward(&self, _pod: &Pod, _request: PortForwardRequest) -> Result<String> {
        Err(Status::unimplemented("port forward").into())
    }
}
