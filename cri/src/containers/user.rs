//! Users and groups by name, from the image's own `/etc/passwd` and
//! `/etc/group`. The root is hostile: files are opened inside it only.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tonic::Status;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Larger files are not read.
const MAX_FILE: u64 = 4 << 20;

pub struct Databases {
    passwd: String,
    group: String,
}

impl Databases {
    pub fn read(root: &Path) -> Self {
        let dir = File::open(root).ok();
        let read = |path: &str| {
            dir.as_ref()
                .and_then(|dir| read_inside(dir, path).ok())
                .unwrap_or_default()
        };
        Self {
            passwd: read("etc/passwd"),
            group: read("etc/group"),
        }
    }

    /// `(name, uid, gid)` of each valid line.
    fn users(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((name, uid, fields.next()?.parse().ok()?))
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("").split(',').collect()))
        })
    }

    /// `USER[:GROUP]`, each a name or a number; empty is root.
    pub fn resolve(&self, text: &str) -> Result<User> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let found = match user.parse::<u32>() {
            Ok(uid) => self
                .users()
                .find(|(_, u, _)| *u == uid)
                .map(|(name, uid, gid)| (name.to_owned(), uid, gid))
                .unwrap_or((String::new(), uid, 0)),
            Err(_) => self
                .users()
                .find(|(name, _, _)| *name == user)
                .map(|(name, uid, gid)| (name.to_owned(), uid, gid))
                .with_context(|| format!("user {user:?} is not in the image's /etc/passwd"))?,
        };
        let (name, uid, mut gid) = found;
        if let Some(group) = group.filter(|g| !g.is_empty()) {
            gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => self
                    .groups()
                    .find(|(name, _, _)| *name == group)
                    .map(|(_, gid, _)| gid)
                    .with_context(|| format!("group {group:?} is not in the image's /etc/group"))?,
            };
        }
        Ok(User {
            uid,
            gid,
            groups: self.member_of(&name),
        })
    }

    fn member_of(&self, name: &str) -> Vec<u32> {
        if name.is_empty() {
            return Vec::new();
        }
        self.groups()
            .filter(|(_, _, members)| members.contains(&name))
            .map(|(_, gid, _)| gid)
            .collect()
    }
}

fn read_inside(root: &File, path: &str) -> Result<String> {
    let fd = rustix::fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        bail!("{path} is not a file");
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user id of the request.
pub fn id(value: i64, what: &str) -> Result<u32> {
    u32::try_from(value)
        .map_err(|_| Status::invalid_argument(format!("{what} {value} is not an id")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        Databases {
            passwd: "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\nweb:x:34:\nlog:x:4:web,other\n".into(),
        }
    }

    #[test]
    fn names_and_numbers() {
        let db = databases();
        let web = User {
            uid: 33,
            gid: 34,
            groups: vec![4],
        };
        assert_eq!(db.resolve("web").unwrap(), web);
        assert_eq!(db.resolve("33").unwrap(), web);
        assert_eq!(db.resolve("").unwrap(), User::default());
        assert_eq!(db.resolve("web:log").unwrap().gid, 4);
        let unknown = User {
            uid: 1000,
            gid: 2000,
            groups: vec![],
        };
        assert_eq!(db.resolve("1000:2000").unwrap(), unknown);
        assert!(db.resolve("nobody-known").is_err());
    }
}
