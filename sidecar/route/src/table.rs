//! Virtual hosts by domain, in the order in which Envoy looks.

use crate::{matching::route_matches, view::RequestView};
use sidecar_model::{Route, RouteConfig, VirtualHost};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// A route configuration with its domains indexed. Immutable.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    exact: HashMap<Box<str>, usize>,
    /// `*.suffix` without the star, longest first.
    suffixes: Vec<(Box<str>, usize)>,
    /// `prefix.*` without the star, longest first.
    prefixes: Vec<(Box<str>, usize)>,
    catch_all: Option<usize>,
}

/// What a request found.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// A route.
    Route(&'a Arc<VirtualHost>, &'a Arc<Route>),
    /// A host, but none of its routes.
    NoRoute(&'a Arc<VirtualHost>),
    /// No host.
    NoHost,
}

/// The tables of one worker, made when first asked for and again when the configuration was replaced.
#[derive(Debug, Default)]
pub struct TableCache {
    tables: HashMap<Arc<str>, Arc<RouteTable>>,
}

// === impl RouteTable ===

impl RouteTable {
    /// Indexes the domains of a configuration.
    #[must_use]
    pub fn new(config: Arc<RouteConfig>) -> Self {
        let mut table = Self {
            config: config.clone(),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            catch_all: None,
        };
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                if &**domain == "*" {
                    table.catch_all.get_or_insert(index);
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    table.suffixes.push((suffix.into(), index));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    table.prefixes.push((prefix.into(), index));
                } else {
                    table.exact.entry(domain.clone()).or_insert(index);
                }
            }
        }
        // Stable: of two equal lengths the first configured stays first.
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        table
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// The virtual host of an authority.
    #[must_use]
    pub fn host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.config.ignore_port_in_host_matching { without_port(authority) } else { authority };
        let host: Cow<'_, str> = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            host.to_ascii_lowercase().into()
        } else {
            host.into()
        };
        let index = self
            .exact
            .get(&*host)
            .or_else(|| longest(&self.suffixes, |suffix| host.len() > suffix.len() && host.ends_with(suffix)))
            .or_else(|| {
                longest(&self.prefixes, |prefix| host.len() > prefix.len() && host.starts_with(prefix))
            })
            .or(self.catch_all.as_ref());
        index.map(|i| &self.config.virtual_hosts[*i])
    }

    /// The first route that takes the request.
    #[must_use]
    pub fn find(&self, request: &RequestView<'_>, random: u64) -> Found<'_> {
        let Some(host) = self.host(request.authority) else { return Found::NoHost };
        match host.routes.iter().find(|route| route_matches(&route.matches, request, random)) {
            Some(route) => Found::Route(host, route),
            None => Found::NoRoute(host),
        }
    }
}

fn longest(sorted: &[(Box<str>, usize)], fits: impl Fn(&str) -> bool) -> Option<&usize> {
    sorted.iter().find(|(affix, _)| fits(affix)).map(|(_, index)| index)
}

/// `host:80` → `host`, `[::1]:80` → `[::1]`; anything else as it is.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

// === impl TableCache ===

impl TableCache {
    /// The table of a configuration.
    pub fn get(&mut self, config: &Arc<RouteConfig>) -> Arc<RouteTable> {
        if let Some(table) = self.tables.get(&config.name).filter(|table| Arc::ptr_eq(&table.config, config))
        {
            return table.clone();
        }
        let table = Arc::new(RouteTable::new(config.clone()));
        self.tables.insert(config.name.clone(), table.clone());
        table
    }

    /// Forgets tables whose configuration `keep` does not know any more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tables.retain(|name, _| keep(name));
    }
}
