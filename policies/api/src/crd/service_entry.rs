//! Schema of `ServiceEntry`.

use super::{labels_selector, server_port, string_map, strings};
use crate::schema::{Schema, list, map, object, one_of, text, uint32};

pub(super) fn spec() -> Schema {
    let endpoint = object(vec![
        ("address", text()),
        ("labels", string_map()),
        ("locality", text()),
        ("network", text()),
        ("ports", map(uint32())),
        ("serviceAccount", text()),
        ("weight", uint32()),
    ]);
    object(vec![
        ("addresses", strings().at_most(256)),
        ("endpoints", list(endpoint).at_most(4096)),
        ("exportTo", strings()),
        ("hosts", strings().at_most(256)),
        ("location", one_of(&["MESH_EXTERNAL", "MESH_INTERNAL"])),
        ("ports", list(server_port(&["number", "name"])).at_most(256)),
        ("resolution", one_of(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"])),
        ("subjectAltNames", strings()),
        ("workloadSelector", labels_selector()),
    ])
    .required(&["hosts"])
}
