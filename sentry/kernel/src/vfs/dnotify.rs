//! Changes of a directory told by signals (`fcntl(2)`, `F_NOTIFY`): a watch
//! like those of `inotify(7)`, whose events the executor turns into signals to
//! the file's owner.
//!
//! Locks: a file's `async_io`, then the watch table.

use std::sync::{Arc, Weak};

use syscall_tables::Errno;
use syscall_tables::abi::DnotifyMask;

use super::notify::{Instance, Mask};
use super::{File, FileKind};
use crate::kernel::Kernel;
use crate::sync::{Events, Observer, Subscription};
use crate::task::Task;

/// What an open directory's owner is told of.
pub(super) struct DirNotify {
    wanted: DnotifyMask,
    /// Descriptor that it was asked through.
    fd: i32,
    instance: Arc<Instance>,
    kernel: Weak<Kernel>,
    _subscription: Subscription,
}

impl Drop for DirNotify {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.vfs.watches.remove_instance(&self.instance);
        }
    }
}

/// The events that each bit stands for, of objects in the directory.
fn events_of(wanted: DnotifyMask) -> Mask {
    [
        (DnotifyMask::DN_ACCESS, Mask::ACCESS),
        (DnotifyMask::DN_MODIFY, Mask::MODIFY),
        (DnotifyMask::DN_CREATE, Mask::CREATE | Mask::MOVED_TO),
        (DnotifyMask::DN_DELETE, Mask::DELETE | Mask::MOVED_FROM),
        (DnotifyMask::DN_RENAME, Mask::MOVED_FROM),
        (DnotifyMask::DN_ATTRIB, Mask::ATTRIB),
    ]
    .into_iter()
    .filter(|(bit, _)| wanted.contains(*bit))
    .fold(Mask::empty(), |all, (_, events)| all | events)
}

struct Notifier {
    file: Weak<File>,
    kernel: Weak<Kernel>,
}

impl Observer for Notifier {
    fn notify(&self, _events: Events) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        let file = self.file.clone();
        kernel.executor.spawn(async move {
            if let Some(file) = file.upgrade() {
                tell(&file);
            }
        });
    }
}

/// Sends a signal for each event that has come in.
fn tell(file: &File) {
    let mut state = file.async_io.lock();
    let Some(notify) = &state.dir_notify else {
        return;
    };
    let (fd, once) = (
        notify.fd,
        !notify.wanted.contains(DnotifyMask::DN_MULTISHOT),
    );
    // Events without a name are the directory's own.
    let events = notify.instance.drain();
    let named = events.iter().filter(|event| !event.name.is_empty()).count();
    for _ in 0..if once { named.min(1) } else { named } {
        state.send_message(fd);
    }
    let spent = (once && named > 0).then(|| state.dir_notify.take());
    drop(state);
    drop(spent);
}

/// `F_NOTIFY`: `bits` are added to what is asked for; none ends it. `ENOTDIR`
/// for anything but a directory.
pub fn set(
    kernel: &Arc<Kernel>,
    caller: &Task,
    file: &Arc<File>,
    fd: i32,
    bits: u32,
) -> Result<(), Errno> {
    let inode = file.path.inode_ref()?;
    if inode.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let mut wanted = DnotifyMask::from_bits_truncate(bits);
    let old = file.async_io.lock().dir_notify.take();
    if (wanted - DnotifyMask::DN_MULTISHOT).is_empty() {
        return Ok(());
    }
    if let Some(old) = &old {
        wanted |= old.wanted;
    }
    drop(old);
    let instance = Arc::new(Instance::default());
    let observer = Arc::new(Notifier {
        file: Arc::downgrade(file),
        kernel: Arc::downgrade(kernel),
    });
    let notify = DirNotify {
        wanted,
        fd,
        _subscription: instance.wait.subscribe(Events::READABLE, observer),
        instance: instance.clone(),
        kernel: Arc::downgrade(kernel),
    };
    let watches = &kernel.vfs.watches;
    watches.add(&instance, inode, events_of(wanted))?;
    let mut state = file.async_io.lock();
    state.own_by_default(caller)?;
    let raced = state.dir_notify.replace(notify);
    drop(state);
    drop(raced);
    Ok(())
}
