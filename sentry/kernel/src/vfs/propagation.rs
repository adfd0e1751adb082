//! Mount propagation: peer groups, masters and slaves
//! (`Documentation/filesystems/sharedsubtree.rst`).

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Mount;

/// Mounts that see each other's mount events.
pub(super) struct PeerGroup {
    pub id: u64,
    pub members: Mutex<Vec<Weak<Mount>>>,
    /// Mounts that receive events and send none.
    pub slaves: Mutex<Vec<Weak<Mount>>>,
}

impl PeerGroup {
    pub fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            members: Mutex::default(),
            slaves: Mutex::default(),
        })
    }
}

/// How one mount takes part.
#[derive(Clone, Default)]
pub(super) struct Propagation {
    /// Shared: the peer group.
    pub shared: Option<Arc<PeerGroup>>,
    /// Slave: the group events come from.
    pub master: Option<Arc<PeerGroup>>,
    pub unbindable: bool,
}

/// Propagation types of `mount(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationType {
    Private,
    Shared,
    Slave,
    Unbindable,
}

fn live(list: &Mutex<Vec<Weak<Mount>>>) -> Vec<Arc<Mount>> {
    let mut list = list.lock();
    list.retain(|mount| mount.strong_count() != 0);
    list.iter().filter_map(Weak::upgrade).collect()
}

fn forget(list: &Mutex<Vec<Weak<Mount>>>, mount: &Arc<Mount>) {
    list.lock()
        .retain(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(mount)));
}

/// Makes `mount` part of `group`.
pub(super) fn join(mount: &Arc<Mount>, group: &Arc<PeerGroup>) {
    mount.links.write().propagation.shared = Some(group.clone());
    group.members.lock().push(Arc::downgrade(mount));
}

/// Makes `mount` a slave of `group`.
pub(super) fn enslave(mount: &Arc<Mount>, group: &Arc<PeerGroup>) {
    mount.links.write().propagation.master = Some(group.clone());
    group.slaves.lock().push(Arc::downgrade(mount));
}

/// Gives a copy of a mount the propagation of its original.
pub(super) fn inherit(copy: &Arc<Mount>, original: &Arc<Mount>) {
    let propagation = original.links.read().propagation.clone();
    if let Some(group) = &propagation.shared {
        join(copy, group);
    }
    if let Some(group) = &propagation.master {
        enslave(copy, group);
    }
}

/// Leaves all groups.
pub(super) fn leave(mount: &Arc<Mount>) {
    let old = std::mem::take(&mut mount.links.write().propagation);
    if let Some(group) = &old.shared {
        forget(&group.members, mount);
    }
    if let Some(group) = &old.master {
        forget(&group.slaves, mount);
    }
}

/// Changes how `mount` takes part; `new_group` makes a group id.
pub(super) fn change(mount: &Arc<Mount>, kind: PropagationType, new_group: impl FnOnce() -> u64) {
    let now = mount.links.read().propagation.clone();
    match kind {
        PropagationType::Private => leave(mount),
        PropagationType::Unbindable => {
            leave(mount);
            mount.links.write().propagation.unbindable = true;
        }
        PropagationType::Shared => {
            mount.links.write().propagation.unbindable = false;
            if now.shared.is_none() {
                join(mount, &PeerGroup::new(new_group()));
            }
        }
        PropagationType::Slave => {
            // A shared mount becomes a slave of the peers it leaves; alone in
            // its group it has no master and turns private.
            let Some(group) = now.shared else {
                return;
            };
            forget(&group.members, mount);
            mount.links.write().propagation.shared = None;
            if !live(&group.members).is_empty() {
                if let Some(master) = &now.master {
                    forget(&master.slaves, mount);
                }
                enslave(mount, &group);
            }
        }
    }
}

/// All mounts but `mount` itself that see what is mounted or unmounted below
/// `mount`.
pub(super) fn receivers(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let Some(group) = mount.links.read().propagation.shared.clone() else {
        return Vec::new();
    };
    let mut groups = vec![group];
    let mut found: Vec<Arc<Mount>> = Vec::new();
    let mut at = 0;
    while let Some(group) = groups.get(at).cloned() {
        at += 1;
        let slaves = live(&group.slaves);
        for slave in &slaves {
            let shared = slave.links.read().propagation.shared.clone();
            if let Some(shared) = shared
                && !groups.iter().any(|known| Arc::ptr_eq(known, &shared))
            {
                groups.push(shared);
            }
        }
        for candidate in live(&group.members).into_iter().chain(slaves) {
            if !Arc::ptr_eq(&candidate, mount)
                && !found.iter().any(|known| Arc::ptr_eq(known, &candidate))
            {
                found.push(candidate);
            }
        }
    }
    found
}
