//! The kernel of one sandbox: what all its tasks share.

use std::sync::Arc;

use sentry_platform::Platform;
use sentry_platform::executor::Executor;

/// One per sandbox, shared by all tasks and threads of the sentry.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub executor: Executor,
}
