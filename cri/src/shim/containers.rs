//! Containers of this shim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::process::Process;
use crate::runtime::Runtime;
use crate::ttrpc::{Code, Error};

/// A container with its processes.
pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub runtime: Runtime,
    pub init: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    pub paused: AtomicBool,
}

impl Container {
    pub fn new(id: &str, bundle: &Path, runtime: Runtime, init: Process) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            runtime,
            init: Arc::new(init),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
        }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// The first process, or the one of `exec_id`.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>, Error> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let execs = self.execs.lock();
        let found = execs.get(exec_id).cloned();
        found.ok_or_else(|| {
            let message = format!("process {exec_id} of container {} does not exist", self.id);
            Error::new(Code::NotFound, message)
        })
    }

    pub fn add_exec(&self, process: Process) -> Result<(), Error> {
        let mut execs = self.execs.lock();
        let id = process.exec_id.clone();
        if execs.contains_key(&id) {
            let message = format!("process {id} exists already");
            return Err(Error::new(Code::AlreadyExists, message));
        }
        execs.insert(id, Arc::new(process));
        Ok(())
    }

    pub fn remove_exec(&self, exec_id: &str) {
        self.execs.lock().remove(exec_id);
    }
}
