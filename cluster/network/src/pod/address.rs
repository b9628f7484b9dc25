//! Which pod has which address of a node's range: one small file an address, made before the address is used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::NetworkError;

/// What a file remembers of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
}

/// The addresses of one node in use. Freed ones are used again last, so that a late packet does not meet a new pod.
#[derive(Debug)]
pub(crate) struct AddressBook {
    directory: PathBuf,
    range: Ipv4Net,
    by_address: BTreeMap<Ipv4Addr, Record>,
    by_uid: HashMap<String, Ipv4Addr>,
    ready: HashSet<String>,
    last: Ipv4Addr,
}

// === impl AddressBook ===

impl AddressBook {
    /// Reads the records in `directory`, which it creates if need be.
    pub(crate) fn open(directory: &Path, range: Ipv4Net) -> Result<Self, NetworkError> {
        let failed = || format!("cannot read the address records in {}", directory.display());
        fs::create_dir_all(directory).map_err(NetworkError::io(failed()))?;
        let mut book = Self {
            directory: directory.to_path_buf(),
            range,
            by_address: BTreeMap::new(),
            by_uid: HashMap::new(),
            ready: HashSet::new(),
            last: range.network(),
        };
        for entry in fs::read_dir(directory).map_err(NetworkError::io(failed()))? {
            let path = entry.map_err(NetworkError::io(failed()))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                // Cut short by a crash, before the address was in use.
                fs::remove_file(&path).map_err(NetworkError::io(failed()))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(NetworkError::io(failed()))?;
            let (record, ready) = parse(&bytes).ok_or(NetworkError::Record { path })?;
            book.last = book.last.max(record.ip);
            book.insert(record, ready);
        }
        Ok(book)
    }

    pub(crate) fn all(&self) -> Vec<Record> {
        self.by_address.values().cloned().collect()
    }

    pub(crate) fn find(&self, uid: &str) -> Option<Record> {
        self.by_address.get(self.by_uid.get(uid)?).cloned()
    }

    /// Whether [`AddressBook::mark_ready`] was called for this pod, by this process or an earlier one.
    pub(crate) fn is_ready(&self, uid: &str) -> bool {
        self.ready.contains(uid)
    }

    /// Takes the next free address for a pod and remembers it on disk.
    pub(crate) fn allocate(
        &mut self,
        uid: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Record, NetworkError> {
        let ip = self.next_free().ok_or(NetworkError::Exhausted { cidr: self.range })?;
        let record = Record { uid: uid.into(), namespace: namespace.into(), name: name.into(), ip };
        self.save(&record, false)?;
        self.last = ip;
        self.insert(record.clone(), false);
        Ok(record)
    }

    /// Remembers that everything of the pod's network was made.
    pub(crate) fn mark_ready(&mut self, record: &Record) -> Result<(), NetworkError> {
        self.save(record, true)?;
        self.ready.insert(record.uid.clone());
        Ok(())
    }

    /// Frees a pod's address. A pod that has none is fine.
    pub(crate) fn release(&mut self, uid: &str) -> Result<(), NetworkError> {
        let Some(ip) = self.by_uid.get(uid).copied() else { return Ok(()) };
        match fs::remove_file(self.directory.join(ip.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(NetworkError::io("cannot remove a pod address record")(error));
            }
            _ => {}
        }
        self.by_uid.remove(uid);
        self.by_address.remove(&ip);
        self.ready.remove(uid);
        Ok(())
    }

    fn insert(&mut self, record: Record, ready: bool) {
        self.by_uid.insert(record.uid.clone(), record.ip);
        if ready {
            self.ready.insert(record.uid.clone());
        }
        self.by_address.insert(record.ip, record);
    }

    /// Skips the network's own address, the gateway (.1) and the broadcast address.
    fn next_free(&self) -> Option<Ipv4Addr> {
        let usable = || self.range.hosts().skip(1);
        let after = usable().filter(|ip| *ip > self.last);
        let before = usable().filter(|ip| *ip <= self.last);
        after.chain(before).find(|ip| !self.by_address.contains_key(ip))
    }

    /// Written aside and renamed: a record is whole or absent. It needs no fsync, for no namespace survives the machine either.
    fn save(&self, record: &Record, ready: bool) -> Result<(), NetworkError> {
        let failed = || NetworkError::io("cannot remember a pod's address");
        let path = self.directory.join(record.ip.to_string());
        let aside = path.with_extension(format!("{}.new", record.ip.octets()[3]));
        let line = serde_json::json!({"pod": record, "ready": ready}).to_string();
        fs::write(&aside, line).map_err(failed())?;
        fs::rename(&aside, &path).map_err(failed())
    }
}

fn parse(bytes: &[u8]) -> Option<(Record, bool)> {
    #[derive(Deserialize)]
    struct Saved {
        pod: Record,
        ready: bool,
    }
    let saved: Saved = serde_json::from_slice(bytes).ok()?;
    Some((saved.pod, saved.ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Ipv4Net {
        "10.244.3.0/29".parse().unwrap()
    }

    fn book(directory: &Path) -> AddressBook {
        AddressBook::open(directory, range()).unwrap()
    }

    #[test]
    fn addresses_are_handed_out_once_until_none_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut book = book(directory.path());
        let taken: Vec<_> =
            (0..5).map(|i| book.allocate(&format!("u{i}"), "ns", "pod").unwrap().ip.octets()[3]).collect();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
        assert!(matches!(book.allocate("u9", "ns", "pod"), Err(NetworkError::Exhausted { .. })));
        book.release("u1").unwrap();
        book.release("u1").unwrap();
        assert_eq!(book.allocate("u9", "ns", "pod").unwrap().ip.octets()[3], 3);
    }

    #[test]
    fn a_freed_address_waits_for_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut book = book(directory.path());
        book.allocate("a", "ns", "a").unwrap();
        book.release("a").unwrap();
        assert_eq!(book.allocate("b", "ns", "b").unwrap().ip.octets()[3], 3);
    }

    #[test]
    fn records_survive_a_restart_and_an_interrupted_one_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = book(directory.path());
        let a = first.allocate("a", "ns", "a").unwrap();
        first.allocate("b", "ns", "b").unwrap();
        first.mark_ready(&a).unwrap();
        fs::write(directory.path().join("10.244.3.4.new"), b"{").unwrap();
        let mut second = book(directory.path());
        assert_eq!(second.all(), first.all());
        assert!(second.is_ready("a") && !second.is_ready("b"));
        assert_eq!(second.allocate("c", "ns", "c").unwrap().ip.octets()[3], 4);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("10.244.3.4"), b"{}").unwrap();
        let error = AddressBook::open(directory.path(), range()).unwrap_err();
        assert!(error.to_string().contains("10.244.3.4"), "{error}");
    }
}
