//! Requests: often such that a route takes them.

use super::matches::{HEADERS, VALUES};
use super::{CLUSTERS, Generator};
use crate::client::Call;
use policies_xds::route::RouteConfiguration;
use policies_xds::route::route_match::PathSpecifier;

const HOSTS: [&str; 16] = [
    "a.test",
    "b.test",
    "www.a.test",
    "x.www.a.test",
    "a.other",
    "deep.b.test",
    "a.test:8080",
    "a.test:80",
    "A.TEST",
    "b-x.test",
    "a.other.test",
    "unknown.example",
    "a.test.",
    "deep.b.test:8080",
    "www.other",
    "[::1]:8080",
];
const PATHS: [&str; 26] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/A",
    "/ab",
    "/a?q=foo",
    "/a/b?q=10&r=abc",
    "/api/v1",
    "/api/v1/items",
    "/api/v1/items?r",
    "/api/v2/items/7?q=FOO&q=foo",
    "/a//b",
    "//a",
    "/a/../b",
    "/a/./b",
    "/a%2Fb",
    "/a%2fb/..",
    "/a%5Cb",
    "/%61/b",
    "/b;p=1",
    "/a/b/c/",
    "/a%20b",
    "/xxx",
    "/api/v1//items/?q=",
    "/a?b=/../c",
];
const ORIGINS: [&str; 4] = ["http://a.test", "http://b.example", "https://c.example", "http://x.TEST"];

/// A request for `config`.
pub fn request(generator: &mut Generator, config: &RouteConfiguration) -> Call {
    generator.call(config)
}

impl Generator {
    fn call(&mut self, config: &RouteConfiguration) -> Call {
        let (host, path) = self.target(config);
        let method = match self.below(20) {
            0..=9 => "GET",
            10..=13 => "POST",
            14 => "PUT",
            15 => "HEAD",
            16..=17 => "OPTIONS",
            18 => "DELETE",
            _ => "PATCH",
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for name in HEADERS.iter().take(3) {
            if self.chance(45) {
                headers.push(((*name).to_owned(), self.pick(&VALUES).to_owned()));
            }
        }
        if self.chance(8) {
            headers.push(("x-a".into(), "second".into()));
        }
        // Weighted clusters that chance would choose among must not be left to it.
        headers.push(("x-weight".into(), self.below(1000).to_string()));
        self.special(&mut headers, method);
        let body =
            if matches!(method, "POST" | "PUT" | "PATCH") { "some body".to_owned() } else { String::new() };
        Call { method: method.to_owned(), host, path, headers, body }
    }

    /// A host and a path, mostly of one of the routes.
    fn target(&mut self, config: &RouteConfiguration) -> (String, String) {
        let any_host = self.pick(&HOSTS).to_owned();
        let any_path = self.pick(&PATHS).to_owned();
        if self.chance(30) {
            return (any_host, any_path);
        }
        let host = &config.virtual_hosts[self.below(config.virtual_hosts.len() - 1)];
        let domain = host.domains[self.below(host.domains.len())].clone();
        let name = match domain.as_str() {
            "*" => any_host,
            wild => wild.replace('*', ["x", "a", "www.a"][self.below(3)]),
        };
        if self.chance(30) {
            return (name, any_path);
        }
        let route = &host.routes[self.below(host.routes.len())];
        let path = match route.r#match.as_ref().and_then(|it| it.path_specifier.as_ref()) {
            Some(PathSpecifier::Prefix(prefix)) if !prefix.is_empty() => {
                prefix.clone() + ["", "x", "/x", "?q=foo"][self.below(4)]
            }
            Some(PathSpecifier::Path(path)) => path.clone() + ["", "", "/", "?r=10"][self.below(4)],
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
                prefix.clone() + ["", "/", "/x/y", "x", "?q", "//"][self.below(6)]
            }
            _ => any_path,
        };
        let path = if self.chance(10) { path.to_ascii_uppercase() } else { path };
        (name, path)
    }

    /// Headers that mean something.
    fn special(&mut self, headers: &mut Vec<(String, String)>, method: &str) {
        let mut add = |own: &mut Self, chance: u32, name: &str, values: &[&str]| {
            if own.chance(chance) {
                headers.push((name.to_owned(), own.pick(values).to_owned()));
            }
        };
        let clusters: Vec<&str> = CLUSTERS.iter().copied().chain(["missing", ""]).collect();
        add(self, 50, "x-cluster", &clusters);
        add(self, 20, "cookie", &["session=abc", "a=b; session=\"xyz\"", "session=", "other=1"]);
        add(self, 25, "origin", &ORIGINS);
        if method == "OPTIONS" {
            add(self, 60, "access-control-request-method", &["GET", "PUT", ""]);
            add(self, 20, "access-control-request-headers", &["x-a"]);
        }
        add(self, 20, "x-fail", &["503,1", "503,9", "418,1", "409,1", "500,2", "502,2", "404,9"]);
        add(
            self,
            15,
            "x-forwarded-for",
            &["10.0.0.1", "8.8.8.8", "1.2.3.4, 10.0.0.2", "10.0.0.1,8.8.4.4,7.7.7.7", "bogus"],
        );
        add(self, 10, "x-forwarded-proto", &["https", "http", "ftp"]);
        add(self, 5, "x-forwarded-host", &["front.test"]);
        add(self, 8, "x-envoy-upstream-rq-timeout-ms", &["3000", "0", "abc"]);
        add(self, 8, "x-envoy-max-retries", &["0", "2", "x"]);
        add(self, 8, "x-envoy-retry-on", &["5xx", "retriable-4xx", "retriable-status-codes"]);
        add(self, 5, "x-envoy-retriable-status-codes", &["418,409", "503"]);
        add(self, 5, "x-envoy-expected-rq-timeout-ms", &["17"]);
        add(self, 5, "x-envoy-attempt-count", &["7"]);
        add(self, 5, "x-envoy-original-path", &["/original"]);
        add(self, 5, "x-envoy-internal", &["true"]);
        add(self, 5, "x-envoy-upstream-rq-per-try-timeout-ms", &["2000"]);
        add(self, 5, "x-request-id", &["7b0d8a6a-6c0f-4e0e-8d6e-000000000000"]);
        add(self, 10, "x-server", &["backend/1"]);
        add(self, 15, "x-echo", &["echoed", "foo"]);
        add(self, 5, "content-type", &["application/grpc", "application/grpc+proto", "text/plain"]);
        add(self, 10, "user-agent", &["test/1"]);
        add(self, 5, "connection", &["keep-alive", "close"]);
        add(self, 4, "te", &["trailers", "gzip"]);
        add(self, 4, "via", &["1.1 before"]);
        add(self, 4, "x-empty", &[""]);
    }
}
