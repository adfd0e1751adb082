//! Hierarchies mounted on this host (`cgroups(7)`, `proc_pid_mountinfo(5)`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Version;

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount_point: PathBuf,
    pub version: Version,
    pub controllers: Vec<String>,
    /// Cgroup of this process there, as `/proc/self/cgroup` names it.
    own: PathBuf,
}

impl Hierarchy {
    /// Directory of the cgroup `path`: below the mount point if absolute,
    /// else below this process's own cgroup.
    pub fn place(&self, path: &Path) -> PathBuf {
        if let Ok(relative) = path.strip_prefix("/") {
            return self.mount_point.join(relative);
        }
        let own = self.own.strip_prefix("/").unwrap_or(&self.own);
        // A version 2 cgroup with processes in it can't limit its children.
        let own = match self.version {
            Version::V2 if !self.controllers.is_empty() => own.parent().unwrap_or(own),
            Version::V1 | Version::V2 => own,
        };
        self.mount_point.join(own).join(path)
    }
}

/// All hierarchies that containers get a cgroup in.
pub fn mounted() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc is not mounted")?;
    let own = fs::read_to_string("/proc/self/cgroup").context("/proc is not mounted")?;
    let mut found = parse(&mounts, &own);
    for hierarchy in &mut found {
        if hierarchy.version == Version::V2 {
            let path = hierarchy.mount_point.join("cgroup.controllers");
            let text = fs::read_to_string(path).unwrap_or_default();
            hierarchy.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
    }
    Ok(found)
}

/// Whether version 2 is all there is.
pub fn unified_only() -> bool {
    mounted().is_ok_and(|found| {
        !found.is_empty() && found.iter().all(|each| each.version == Version::V2)
    })
}

/// The mount point that `path` is below.
pub fn mount_point_of(path: &Path) -> Option<PathBuf> {
    let found = mounted().ok()?.into_iter();
    found
        .map(|hierarchy| hierarchy.mount_point)
        .find(|mount_point| path.starts_with(mount_point))
}

fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut after = after.split(' ');
        let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
        let Some(mount_point) = before.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let (version, controllers) = match kind {
            Some("cgroup2") => (Version::V2, Vec::new()),
            Some("cgroup") => {
                let flags = ["rw", "ro", "xattr", "noprefix", "clone_children", "nosuid"];
                let names = options
                    .split(',')
                    .filter(|name| !flags.contains(name) && !name.starts_with("release_agent="));
                (Version::V1, names.map(str::to_owned).collect::<Vec<_>>())
            }
            _ => continue,
        };
        let known = found
            .iter()
            .any(|other| other.version == version && other.controllers == controllers);
        // A hierarchy that is mounted twice is one.
        if known {
            continue;
        }
        found.push(Hierarchy {
            own: own_path(own, version, &controllers),
            mount_point,
            version,
            controllers,
        });
    }
    found
}

/// Path of this process's cgroup in the hierarchy with these controllers.
fn own_path(own: &str, version: Version, controllers: &[String]) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = match version {
            Version::V2 => number == "0" && names.is_empty(),
            Version::V1 => names
                .split(',')
                .any(|name| !name.is_empty() && controllers.iter().any(|own| own == name)),
        };
        here.then(|| PathBuf::from(path))
    });
    path.unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid() {
        let mounts = "\
33 32 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
34 33 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct
35 33 0:30 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd
36 33 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let own = "4:cpu,cpuacct:/user\n1:name=systemd:/a/b\n0::/c\n";
        let found = parse(mounts, own);
        let [cpu, systemd, unified] = found.as_slice() else {
            panic!("three hierarchies, not {found:?}");
        };
        assert_eq!(cpu.controllers, ["cpu", "cpuacct"]);
        assert_eq!(
            cpu.place(Path::new("/docker/x")),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/x")
        );
        assert_eq!(
            cpu.place(Path::new("x")),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/user/x")
        );
        assert_eq!(systemd.controllers, ["name=systemd"]);
        assert_eq!(systemd.own, Path::new("/a/b"));
        assert_eq!(unified.version, Version::V2);
        assert_eq!(
            unified.place(Path::new("x")),
            Path::new("/sys/fs/cgroup/unified/c/x")
        );
    }

    #[test]
    fn version_2_alone_goes_beside_the_own_cgroup() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mut found = parse(mounts, "0::/user.slice/session-1.scope\n");
        let hierarchy = found.first_mut().expect("one hierarchy");
        hierarchy.controllers.push("memory".to_owned());
        assert_eq!(
            hierarchy.place(Path::new("x")),
            Path::new("/sys/fs/cgroup/user.slice/x")
        );
    }
}
