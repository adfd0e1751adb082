//! The cases, by subject.

mod archives;
mod basic;
mod clients;
mod crash;
mod figures;
mod images;
mod kills;
mod kubelet;
mod load;
mod mounts;
mod plugins;
mod pods;
mod registries;
mod security;
mod state;
mod storage;
mod streaming;
mod together;

use std::pin::Pin;

use anyhow::Result;

use crate::env::Shared;

pub type Future = Pin<Box<dyn std::future::Future<Output = Result<()>>>>;

pub struct Case {
    pub name: &'static str,
    pub run: fn(Shared) -> Future,
    pub long: bool,
    /// Needs a daemon of our own.
    pub own: bool,
}

/// A row of a table of cases.
#[macro_export]
macro_rules! case {
    ($name:literal, $function:path) => {
        $crate::cases::Case {
            name: $name,
            run: |e| Box::pin($function(e)),
            long: false,
            own: false,
        }
    };
    ($name:literal, $function:path, own) => {
        $crate::cases::Case {
            name: $name,
            run: |e| Box::pin($function(e)),
            long: false,
            own: true,
        }
    };
    ($name:literal, $function:path, long) => {
        $crate::cases::Case {
            name: $name,
            run: |e| Box::pin($function(e)),
            long: true,
            own: true,
        }
    };
    // Figures, of the reference too.
    ($name:literal, $function:path, figures) => {
        $crate::cases::Case {
            name: $name,
            run: |e| Box::pin($function(e)),
            long: true,
            own: false,
        }
    };
}

pub fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(basic::cases());
    all.extend(streaming::cases());
    all.extend(figures::cases());
    all.extend(images::cases());
    all.extend(registries::cases());
    all.extend(archives::cases());
    all.extend(mounts::cases());
    all.extend(pods::cases());
    all.extend(plugins::cases());
    all.extend(security::cases());
    all.extend(state::cases());
    all.extend(kubelet::cases());
    all.extend(together::cases());
    all.extend(storage::cases());
    all.extend(crash::cases());
    all.extend(clients::cases());
    all.extend(kills::cases());
    all.extend(load::cases());
    all
}
