//! Which capabilities a container gets. Pure.

/// What ordinary programs get: the list of containerd and Docker.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Canonical names, sorted. `ALL` is handled first, in both lists; then single additions, then single removals.
pub(super) fn wanted(privileged: bool, add: &[String], drop: &[String]) -> Result<Vec<String>, String> {
    let all = || caps::all().iter().map(ToString::to_string).collect::<Vec<_>>();
    let add_all = add.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let drop_all = drop.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: Vec<String> = match (privileged || add_all, drop_all) {
        (true, _) => all(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT.iter().map(|name| (*name).to_owned()).collect(),
    };
    for name in singles(add)? {
        set.push(name);
    }
    if !privileged {
        let dropped = singles(drop)?;
        set.retain(|name| !dropped.contains(name));
    }
    set.sort();
    set.dedup();
    Ok(set)
}

fn singles(names: &[String]) -> Result<Vec<String>, String> {
    let single = names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"));
    single
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let known = full.parse::<caps::Capability>();
            known.map(|_| full).map_err(|_| format!("unknown capability \"{name}\""))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lists_combine_as_kubernetes_says() {
        assert_eq!(wanted(false, &[], &[]).unwrap().len(), DEFAULT.len());
        assert_eq!(wanted(false, &[], &list(&["ALL"])).unwrap(), Vec::<String>::new());
        assert_eq!(
            wanted(false, &list(&["NET_BIND_SERVICE"]), &list(&["ALL"])).unwrap(),
            ["CAP_NET_BIND_SERVICE"]
        );
        let some = wanted(false, &list(&["cap_net_admin"]), &list(&["MKNOD"])).unwrap();
        assert!(some.contains(&"CAP_NET_ADMIN".into()) && !some.contains(&"CAP_MKNOD".into()));
        let most = wanted(false, &list(&["ALL"]), &list(&["SYS_ADMIN"])).unwrap();
        assert!(most.len() > 35 && !most.contains(&"CAP_SYS_ADMIN".into()));
        assert!(wanted(true, &[], &list(&["ALL"])).unwrap().contains(&"CAP_SYS_ADMIN".into()));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(wanted(false, &list(&["FLY"]), &[]).unwrap_err(), "unknown capability \"FLY\"");
    }
}
