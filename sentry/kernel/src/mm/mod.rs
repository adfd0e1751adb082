//! Guest memory: policy over what the platform carries out.

mod manager;

pub use manager::MemoryManager;
