use super::*;
use crate::{SetMask, Time};

fn samples<'a>(packed: &'a [u8], forgets: &'a [u8]) -> Vec<Request<'a>> {
    let (node, parent) = (NodeId(7), NodeId(9));
    let owner = Ownership {
        mode: 0o644,
        uid: 1,
        gid: 2,
    };
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let name = b"name".as_slice();
    let removed = Removed::Keep;
    vec![
        Request::Attach { root: 3 },
        Request::Walk {
            node,
            names: Names::new(packed).expect("names"),
        },
        Request::GetAttr { node },
        Request::SetAttr {
            node,
            set: SetAttr {
                mask: SetMask::MTIME.bits(),
                mtime: Time::new(-1, 5),
                ..SetAttr::default()
            },
        },
        Request::Open { node, flags },
        Request::Create {
            parent,
            name,
            flags,
            owner,
        },
        Request::Tmpfile {
            parent,
            flags,
            owner,
        },
        Request::Mkdir {
            parent,
            name,
            owner,
        },
        Request::Symlink {
            parent,
            name,
            target: b"../x",
            uid: 1,
            gid: 2,
        },
        Request::Mknod {
            parent,
            name,
            owner: Ownership {
                mode: 0o010_644,
                ..owner
            },
        },
        Request::Link { node, parent, name },
        Request::Unlink {
            parent,
            name,
            removed,
        },
        Request::Rmdir {
            parent,
            name,
            removed,
        },
        Request::Rename {
            parent,
            name,
            new_parent: node,
            new_name: b"other",
            flags: RenameFlags::EXCHANGE,
            removed,
        },
        Request::Readlink { node },
        Request::Readdir {
            node,
            offset: i64::MAX,
            detail: Detail::Attributes,
            limit: 4096,
        },
        Request::Statfs { node },
        Request::GetXattr { node, name },
        Request::SetXattr {
            node,
            name,
            value: b"value",
            flags: 2,
        },
        Request::ListXattr { node },
        Request::RemoveXattr { node, name },
        Request::Fsync {
            node,
            data_only: true,
        },
        Request::Forget {
            list: Forgets::new(forgets).expect("forgets"),
        },
    ]
}

#[test]
fn every_request_survives_coding_and_no_cut_or_longer_one_does() {
    let packed = Names::pack([b"a".as_slice(), b"bc"]);
    let forgets = Forgets::pack([(NodeId(1), 2)]);
    let mut bytes = Vec::new();
    for request in samples(&packed, &forgets) {
        request.encode(&mut bytes);
        assert_eq!(Request::decode(&bytes), Ok(request));
        for len in 0..bytes.len() {
            assert!(Request::decode(bytes.get(..len).expect("cut")).is_err());
        }
        bytes.push(0);
        assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn names_that_could_leave_a_directory_are_malformed() {
    for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
        let packed = Names::pack([bad.as_bytes()]);
        assert!(Names::new(&packed).is_err(), "{bad:?}");
    }
    assert!(Names::new(&Names::pack([[b'x'; 256].as_slice()])).is_err());
    assert!(Names::new(&Names::pack([[b'x'; 255].as_slice()])).is_ok());
    assert!(Names::new(&Names::pack(vec![b"x".as_slice(); WALK_MAX + 1])).is_err());
}
