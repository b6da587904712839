//! Who a payload is: `user[:group]`, each a name or a number, as `/etc/passwd` and `/etc/group` of the jail's root have
//! them (passwd(5), group(5); OCI image configuration, "User").
//!
//! They are read within the root, when nothing else is in reach, and by `openat2`, so that no link of an image leads to
//! what the kernel shows of this process.

use std::fs::File;
use std::io::Read;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::error::{At, Failure, Step};

/// More than any such file has.
const MOST: u64 = 1 << 20;
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Numbers, inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) user: u32,
    pub(super) group: u32,
    /// All groups of somebody who was looked up: a file that is closed to the first is closed to its members also when a
    /// program of another group runs.
    pub(super) groups: Vec<u32>,
}

/// Looks somebody up in the root that this process is in.
pub(super) fn find(text: &str) -> Result<Who, Failure> {
    look_up(text, &read(USERS)?, &read(GROUPS)?).map_err(|why| Failure::refused(Step::User, why))
}

/// A file of the root; nothing if there is none.
fn read(path: &str) -> Result<String, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::User, || "/".into())?;
    let file = match openat2(&root, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        opened => opened.at(Step::User, || path.into())?,
    };
    let kind = FileType::from_raw_mode(fstat(&file).at(Step::User, || path.into())?.st_mode);
    if kind != FileType::RegularFile {
        return Err(Failure::refused(Step::User, format!("{path} of the image is no file")));
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(MOST + 1).read_to_end(&mut bytes);
    read.at(Step::User, || path.into())?;
    if bytes.len() as u64 > MOST {
        let why = format!("{path} of the image has more than {MOST} bytes");
        return Err(Failure::refused(Step::User, why));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number that a text is; the last is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// The fields of the line with this name, or if there is none with this number.
fn line<'t>(lines: &'t str, who: &str) -> Option<Vec<&'t str>> {
    let all = || lines.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = all().find(|fields| fields[0] == who && fields.len() > 2);
    named.or_else(|| {
        let wanted = number(who)?;
        all().find(|fields| fields.get(2).and_then(|id| number(id)) == Some(wanted))
    })
}

fn look_up(text: &str, users: &str, groups: &str) -> Result<Who, String> {
    let unknown = |what: &str, name: &str, file: &str| {
        format!("the image has no {what} `{name}` in its {file}: give one that it has, or a number, with --user")
    };
    let (name, group) = text
        .split_once(':')
        .map_or((text, None), |(name, group)| (name, Some(group)));
    let found = line(users, name);
    let of = |field: usize| found.as_ref().and_then(|fields| number(fields.get(field)?));
    let user = of(2)
        .or_else(|| number(name))
        .ok_or_else(|| unknown("user", name, USERS))?;
    if let Some(group) = group {
        let found = line(groups, group).and_then(|fields| number(fields[2]));
        let group = found
            .or_else(|| number(group))
            .ok_or_else(|| unknown("group", group, GROUPS))?;
        let groups = vec![group];
        return Ok(Who { user, group, groups });
    }
    let group = of(3).unwrap_or(0);
    let mut all = vec![group];
    // Those that have the user as a member, by name.
    let member = found.as_ref().map(|fields| fields[0]);
    for line in groups.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, id, members, ..] = fields[..] else { continue };
        let is_member = members.split(',').any(|name| Some(name) == member);
        all.extend(number(id).filter(|id| is_member && !all.contains(id)));
    }
    let groups = all;
    Ok(Who { user, group, groups })
}

/// Becomes somebody: groups, group, user. In a user namespace of one id groups cannot be set (user_namespaces(7),
/// "setgroups"), and there is but one.
pub(super) fn become_who(who: &Who) -> Result<(), Failure> {
    let what = || format!("user {}, group {}", who.user, who.group);
    if !who.groups.is_empty() {
        let groups: Vec<_> = who.groups.iter().map(|id| rustix::fs::Gid::from_raw(*id)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            Err(Errno::PERM) => {}
            other => other.at(Step::User, || format!("groups {:?}", who.groups))?,
        }
    }
    super::idmap::become_user(who.user, who.group).at(Step::User, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nodd\nweb:x:33:34:www:/srv:/bin/false\n7:x:8:9::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\nodd:x\ndisk:x:6:other,web\n12:x:13:\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let who = |user, group, further: &[u32]| {
            let groups = [&[group], further].concat();
            Ok(Who { user, group, groups })
        };
        for (text, expected) in [
            ("root", who(0, 0, &[])),
            ("web", who(33, 34, &[50, 6])),
            ("33", who(33, 34, &[50, 6])),
            ("web:logs", who(33, 50, &[])),
            ("web:99", who(33, 99, &[])),
            ("1000", who(1000, 0, &[])),
            ("1000:logs", who(1000, 50, &[])),
            // A name that is a number is a name first.
            ("7", who(8, 9, &[])),
            ("0:12", who(0, 13, &[])),
        ] {
            assert_eq!(look_up(text, PASSWD, GROUP), expected, "{text}");
        }
        assert_eq!(look_up("5", "", ""), who(5, 0, &[]));
    }

    #[test]
    fn who_is_not_known_is_refused_by_name() {
        for (text, words) in [
            ("nobody", "no user `nobody` in its /etc/passwd"),
            ("", "no user ``"),
            ("odd", "no user `odd`"),
            ("4294967295", "no user `4294967295`"),
            ("-1", "no user `-1`"),
            ("web:", "no group ``"),
            ("web:odd", "no group `odd` in its /etc/group"),
            ("web:a:b", "no group `a:b`"),
        ] {
            let error = look_up(text, PASSWD, GROUP).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_files_and_any_text_are_looked_up_without_a_panic(
            text in "[a-c0-3:,]{0,8}", users in "[a-c0-3:,\n]{0,60}", groups in "[a-c0-3:,\n]{0,60}"
        ) {
            let _ = look_up(&text, &users, &groups);
        }
    }
}
