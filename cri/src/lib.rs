//! The Kubernetes CRI server. Table of contents:
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | command line of `runsc-cri` |
//! | [`config`] | the configuration file |
//! | [`daemon`] | start, socket, end of the server |
//! | `accept` | connections of clients and their limits |
//! | `systemd` | socket activation, notification |
//! | `doctor` | what a machine lacks for running pods |
//! | `image_command` | `runsc-cri image` |
//! | `metrics` | the Prometheus endpoint |
//! | [`service`] | the RPCs of RuntimeService and ImageService |
//! | [`node`] | what all requests share |
//! | [`store`] | records of pods and containers, in memory and on disk |
//! | [`pods`] | run, stop, remove, recovery of pod sandboxes |
//! | [`containers`] | OCI configuration, life, exec, stats of containers |
//! | [`supervisor`] | the process per pod that outlives the daemon |
//! | [`runtime`] | OCI runtimes by their command line |
//! | [`images`] | registry, content, unpacked layers |
//! | [`cni`] | network plugins |
//! | `cdi` | devices by the Container Device Interface |
//! | [`streaming`] | exec, attach, port-forward for the kubelet |
//! | [`proto`] | generated messages |
#![forbid(unsafe_code)]

mod accept;
mod cdi;
pub mod cli;
pub mod cni;
pub mod config;
pub mod containers;
pub mod daemon;
mod doctor;
pub mod ids;
mod image_command;
pub mod images;
mod metrics;
pub mod node;
pub mod pods;
pub mod proto;
pub mod runtime;
pub mod service;
pub mod store;
pub mod streaming;
pub mod supervisor;
mod systemd;
pub mod time;
