//! Changes to headers.

use super::Generator;
use policies_xds::core::header_value_option::HeaderAppendAction;
use policies_xds::core::{HeaderValue, HeaderValueOption};

const ADDED: [&str; 6] = ["x-a", "x-b", "x-c", "X-Mixed-Case", "x-multi", "x-d"];
const REQUEST_VALUES: [&str; 10] = [
    "plain",
    "%REQ(x-a)%",
    "%REQ(x-absent?x-b):3%",
    "%REQ(:METHOD)% %REQ(:PATH)%",
    "",
    "100%%",
    "%PROTOCOL%",
    "%REQ(:AUTHORITY)%",
    "%ROUTE_NAME%",
    "%REQ(x-absent)%",
];
const RESPONSE_VALUES: [&str; 8] = [
    "plain",
    "%RESP(x-multi)%",
    "%REQ(x-a)%",
    "%RESPONSE_CODE%",
    "",
    "%PROTOCOL%",
    "%ROUTE_NAME%",
    "%RESP(x-absent?x-b)%",
];

impl Generator {
    pub(super) fn request_header(&mut self) -> HeaderValueOption {
        let value = self.pick(&REQUEST_VALUES);
        self.header(value)
    }

    pub(super) fn response_header(&mut self) -> HeaderValueOption {
        let value = self.pick(&RESPONSE_VALUES);
        self.header(value)
    }

    fn header(&mut self, value: &str) -> HeaderValueOption {
        let actions = [
            HeaderAppendAction::AppendIfExistsOrAdd,
            HeaderAppendAction::AddIfAbsent,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
            HeaderAppendAction::OverwriteIfExists,
        ];
        HeaderValueOption {
            header: Some(HeaderValue {
                key: self.pick(&ADDED).to_owned(),
                value: value.to_owned(),
                ..Default::default()
            }),
            append_action: actions[self.below(4)].into(),
            keep_empty_value: self.chance(20),
            ..Default::default()
        }
    }

    /// Names to remove, in `percent` of a hundred cases any.
    pub(super) fn removed(&mut self, percent: u32) -> Vec<String> {
        if !self.chance(percent) {
            return Vec::new();
        }
        self.some(2, |own| {
            own.pick(&["x-a", "x-b", "X-C", "x-multi", "user-agent", "x-envoy-attempt-count"]).to_owned()
        })
    }
}
