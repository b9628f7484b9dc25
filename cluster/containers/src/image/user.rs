//! Who an image runs as: `USER` and the user database inside the image.

use std::fs::File;
use std::io::Read;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::{Image, ImageError, ImageStore, layer_dir};

/// A user database larger than this is not read. Own choice.
const DATABASE_BYTES_MAX: u64 = 1 << 20;

/// Resolves the image's own `USER`.
pub(crate) fn of_image(store: &ImageStore, image: &Image) -> Result<(u32, u32, Vec<u32>), ImageError> {
    let passwd = file(store, image, "etc/passwd")?;
    let group = file(store, image, "etc/group")?;
    resolve(&image.config.user, &passwd, &group)
        .map_err(|text| ImageError::Refused(format!("{text} (image {})", image.names.join(", "))))
}

/// Resolves the primary and further groups of `uid` in the image.
pub(crate) fn groups_of(store: &ImageStore, image: &Image, uid: u32) -> Result<(u32, Vec<u32>), ImageError> {
    let passwd = file(store, image, "etc/passwd")?;
    let group = file(store, image, "etc/group")?;
    let (_, gid, groups) = resolve(&uid.to_string(), &passwd, &group).map_err(ImageError::Refused)?;
    Ok((gid, groups))
}

/// `user[:group]`, each by name or number, as Docker reads it. Pure.
fn resolve(user: &str, passwd: &str, group: &str) -> Result<(u32, u32, Vec<u32>), String> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let number = user.parse::<u32>().ok();
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let account = accounts.find(|fields| match (fields.as_slice(), number) {
        ([_, _, uid, ..], Some(number)) => uid.parse() == Ok(number),
        ([name, ..], None) => *name == if user.is_empty() { "root" } else { user },
        _ => false,
    });
    let uid = match (number, &account) {
        (Some(number), _) => number,
        (None, Some(fields)) => field(fields, 2).ok_or_else(|| format!("user {user}: not a number"))?,
        (None, None) if user.is_empty() || user == "root" => 0,
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let primary = account.as_ref().and_then(|fields| field(fields, 3)).unwrap_or(0);
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid = match wanted_group {
        None => primary,
        Some(wanted) => match wanted.parse() {
            Ok(number) => number,
            Err(_) => groups()
                .find(|fields| fields.first() == Some(&wanted))
                .and_then(|fields| field(&fields, 2))
                .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?,
        },
    };
    if wanted_group.is_some() {
        return Ok((uid, gid, Vec::new()));
    }
    let name = account.as_ref().and_then(|fields| fields.first().copied()).unwrap_or(user);
    let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|m| m.split(',').any(|m| m == name));
    let further = groups().filter(member).filter_map(|fields| field(&fields, 2)).filter(|g| *g != gid);
    Ok((uid, gid, further.take(1024).collect()))
}

fn field(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

/// A file of the image from its uppermost layer that has it; empty if none has.
fn file(store: &ImageStore, image: &Image, path: &str) -> Result<String, ImageError> {
    let read_only = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    for digest in image.layers.iter().rev() {
        let dir = store.layers_dir().join(layer_dir(digest)?);
        let damaged = |e: nix::Error| super::io_error("cannot open", &dir)(e.into());
        let root = open(&dir, read_only | OFlag::O_DIRECTORY, Mode::empty()).map_err(damaged)?;
        let how = OpenHow::new().flags(read_only | OFlag::O_NONBLOCK).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let Ok(found) = openat2(&root, path, how) else { continue };
        let mut bytes = Vec::new();
        let read = File::from(found).take(DATABASE_BYTES_MAX).read_to_end(&mut bytes);
        if read.is_ok() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::resolve;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/x\n# comment\nodd\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nextra:x:50:web,other\nmore:x:51:other\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        for (user, expected) in [
            ("", (0, 0, vec![])),
            ("root", (0, 0, vec![])),
            ("web", (33, 34, vec![50])),
            ("33", (33, 34, vec![50])),
            ("web:extra", (33, 50, vec![])),
            ("1337", (1337, 0, vec![])),
            ("1337:1338", (1337, 1338, vec![])),
        ] {
            assert_eq!(resolve(user, PASSWD, GROUP), Ok(expected), "{user}");
        }
        assert_eq!(resolve("", "", ""), Ok((0, 0, vec![])));
        assert!(resolve("nobody", PASSWD, GROUP).unwrap_err().contains("no matching entries in passwd"));
        assert!(resolve("web:none", PASSWD, GROUP).unwrap_err().contains("no matching entries in group"));
    }
}
