//! Pure: what is in the kernel's maps, and the difference to what should be.

use std::collections::{BTreeMap, HashMap};

use super::rules::{Key, Value};
use crate::services::ServiceKey;

/// A copy of every element in the kernel's maps, so that they need never be listed.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    elements: HashMap<Key, (Value, ServiceKey)>,
    by_service: HashMap<ServiceKey, Vec<Key>>,
}

/// Elements to remove, then elements to add.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) remove: Vec<(Key, Value)>,
    pub(crate) add: Vec<(Key, Value)>,
}

// === impl Delta ===

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.remove.len() + self.add.len()
    }
}

// === impl Shadow ===

impl Shadow {
    /// Every element, in no order.
    pub(crate) fn elements(&self) -> Vec<(Key, Value)> {
        self.elements.iter().map(|(key, (value, _))| (*key, *value)).collect()
    }

    /// Sets the elements of some services and returns what that changes. Where two services want the same key, the later keeps it.
    pub(crate) fn replace(&mut self, wanted: Vec<(ServiceKey, BTreeMap<Key, Value>)>) -> Delta {
        let mut touched: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        for (service, _) in &wanted {
            for key in self.by_service.remove(service).unwrap_or_default() {
                if self.elements.get(&key).is_some_and(|(_, owner)| owner == service)
                    && let Some((value, _)) = self.elements.remove(&key)
                {
                    touched.insert(key, Some(value));
                }
            }
        }
        for (service, elements) in wanted {
            if elements.is_empty() {
                continue;
            }
            self.by_service.insert(service.clone(), elements.keys().copied().collect());
            for (key, value) in elements {
                let old = self.elements.insert(key, (value, service.clone()));
                touched.entry(key).or_insert(old.map(|(value, _)| value));
            }
        }
        self.difference(&touched)
    }

    /// `touched` has the value each key had in the kernel before.
    fn difference(&self, touched: &BTreeMap<Key, Option<Value>>) -> Delta {
        let mut delta = Delta::default();
        for (key, before) in touched {
            let now = self.elements.get(key).map(|(value, _)| *value);
            if now == *before {
                continue;
            }
            delta.remove.extend(before.map(|value| (*key, value)));
            delta.add.extend(now.map(|value| (*key, value)));
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::rules::{Front, Spread};
    use super::*;
    use crate::services::Protocol;
    use crate::services::tests::key;

    fn front(port: u16) -> Front {
        Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Tcp, port)
    }

    fn bucket(port: u16, bucket: u32) -> Key {
        Key::Bucket(Spread::Random(2), front(port), bucket)
    }

    fn endpoint(last: u8) -> Value {
        Value::Endpoint(Ipv4Addr::new(10, 244, 1, last), 80)
    }

    #[test]
    fn only_what_differs_is_sent() {
        let mut shadow = Shadow::default();
        let first = shadow
            .replace(vec![(key("a"), [(bucket(1, 0), endpoint(2)), (bucket(1, 1), endpoint(3))].into())]);
        assert_eq!((first.remove.len(), first.add.len()), (0, 2));
        let second = shadow
            .replace(vec![(key("a"), [(bucket(1, 0), endpoint(2)), (bucket(1, 1), endpoint(4))].into())]);
        assert_eq!(second.remove, [(bucket(1, 1), endpoint(3))]);
        assert_eq!(second.add, [(bucket(1, 1), endpoint(4))]);
        let same = shadow.elements().into_iter().collect();
        assert!(shadow.replace(vec![(key("a"), same)]).is_empty());
        let gone = shadow.replace(vec![(key("a"), BTreeMap::new())]);
        assert_eq!((gone.remove.len(), gone.add.len()), (2, 0));
        assert!(shadow.elements().is_empty());
    }

    #[test]
    fn an_address_can_pass_from_one_service_to_another() {
        let mut shadow = Shadow::default();
        shadow.replace(vec![(key("old"), [(bucket(1, 0), endpoint(2))].into())]);
        let taken = shadow.replace(vec![(key("new"), [(bucket(1, 0), endpoint(3))].into())]);
        assert_eq!(
            (taken.remove, taken.add),
            (vec![(bucket(1, 0), endpoint(2))], vec![(bucket(1, 0), endpoint(3))])
        );
        assert!(
            shadow.replace(vec![(key("old"), BTreeMap::new())]).is_empty(),
            "the old owner takes nothing away"
        );
        let at_once = shadow.replace(vec![
            (key("new"), BTreeMap::new()),
            (key("next"), [(bucket(1, 0), endpoint(3))].into()),
        ]);
        assert!(at_once.is_empty(), "the same element under a new owner: {at_once:?}");
    }
}
