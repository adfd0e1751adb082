//! The memory of one guest address space.

use std::sync::Arc;

use sentry_platform::AddressSpace;

/// VMA tree, break, limits. Shared by tasks cloned with `CLONE_VM`.
pub struct MemoryManager {
    pub space: Arc<dyn AddressSpace>,
}
