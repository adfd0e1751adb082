//! Requirements that a runtime is known not to meet, each with its reason. A
//! case that is met all the same fails: the list only shrinks.

use super::RUNC;

/// A case, whom it is about, why.
struct Exception {
    case: &'static str,
    of: Of,
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// `runc` 1.1 of Debian bookworm, which follows 1.0.2 of the specification.
    Runc,
    /// This runtime on all platforms.
    Ours,
    Both,
}

const fn exception(of: Of, case: &'static str, why: &'static str) -> Exception {
    Exception { case, of, why }
}

const EXCEPTIONS: &[Exception] = &[
    exception(
        Of::Both,
        "runtime/delete/created",
        "engines undo a failed start by deleting the created container",
    ),
    exception(
        Of::Runc,
        "config/version/semver",
        "the version is not checked",
    ),
    exception(
        Of::Runc,
        "config/version/major",
        "the version is not checked",
    ),
    exception(
        Of::Runc,
        "config/mounts/one_mapping",
        "mappings of mounts are not known to 1.1",
    ),
    exception(
        Of::Runc,
        "config/domainname",
        "domainname is not known to 1.1",
    ),
    exception(
        Of::Runc,
        "config/annotations/empty_key",
        "keys are not checked",
    ),
    exception(
        Of::Runc,
        "config/process/rlimits_twice",
        "limits are not compared",
    ),
    exception(
        Of::Runc,
        "hooks/order",
        "poststart hooks run at create in 1.1",
    ),
    exception(
        Of::Runc,
        "hooks/state",
        "poststart hooks run at create in 1.1",
    ),
    exception(
        Of::Runc,
        "hooks/poststart_fails",
        "poststart hooks run at create in 1.1",
    ),
    exception(
        Of::Runc,
        "hooks/poststop_fails",
        "the first failed hook ends delete",
    ),
    exception(
        Of::Runc,
        "linux/devices/mismatch",
        "the file is left in place of the device",
    ),
    exception(
        Of::Runc,
        "linux/devices/relative",
        "the path is taken relative to /",
    ),
    exception(
        Of::Runc,
        "linux/propagation/known",
        "unbindable does not go with the bind mount of the root",
    ),
    exception(
        Of::Runc,
        "linux/masked/relative",
        "the path is taken relative to the root",
    ),
    exception(
        Of::Runc,
        "linux/readonly/relative",
        "the path is taken relative to the root",
    ),
    exception(
        Of::Runc,
        "linux/personality/linux32",
        "personality is not known to 1.1",
    ),
    exception(
        Of::Ours,
        "linux/personality/linux32",
        "refused: a valid value that need not be supported; the sandbox runs x86-64 programs",
    ),
    exception(
        Of::Runc,
        "linux/personality/unknown",
        "personality is not known to 1.1",
    ),
    exception(
        Of::Runc,
        "linux/cgroups/not_empty",
        "1.1 warns; later ones refuse",
    ),
    exception(Of::Runc, "linux/seccomp/no_names", "names are not counted"),
    exception(
        Of::Runc,
        "linux/seccomp/errno_of_allow",
        "the number is ignored",
    ),
    exception(Of::Runc, "linux/seccomp/metadata", "the text is ignored"),
    exception(
        Of::Runc,
        "features/mount_options",
        "ratime and others need another option beside",
    ),
    exception(
        Of::Runc,
        "commands/exec/process",
        "umask and oomScoreAdj of a further process are ignored in 1.1",
    ),
    exception(
        Of::Runc,
        "commands/exec/process_defaults",
        "the Go runtime's own limit of files comes through",
    ),
    exception(
        Of::Runc,
        "commands/run/preserve_fds_closed",
        "a descriptor of runc itself is taken for it",
    ),
    exception(
        Of::Ours,
        "linux/namespaces/pid_path",
        "refused: processes of the sandbox are not the host's; containers that share a pid namespace share a pod",
    ),
    exception(
        Of::Ours,
        "linux/namespaces/ipc_path",
        "a warning: IPC objects of the sandbox are not the host's; containers that share them share a pod",
    ),
    exception(
        Of::Ours,
        "linux/namespaces/uts_path",
        "a warning: the sandbox has its own names",
    ),
];

pub fn reason(case: &str, platform: &str) -> Option<&'static str> {
    let about = |of: Of| match of {
        Of::Both => true,
        Of::Runc => platform == RUNC,
        Of::Ours => platform != RUNC,
    };
    EXCEPTIONS
        .iter()
        .find(|exception| exception.case == case && about(exception.of))
        .map(|exception| exception.why)
}
