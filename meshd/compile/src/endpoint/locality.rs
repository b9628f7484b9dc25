//! Preference of near endpoints: explicit shares between localities, or priorities by distance once failing endpoints are detected.

use meshd_model::Locality;
use policies_api::destination_rule::LocalityLb;
use policies_xds::core;
use policies_xds::endpoint::ClusterLoadAssignment;

use crate::cluster::Effective;
use crate::proto::number;

/// Rewrites weights and priorities of an assignment as seen from `client`.
pub(super) fn prefer(assignment: &mut ClusterLoadAssignment, client: &Locality, effective: &Effective<'_>) {
    let setting = effective.load_balancer.and_then(|it| it.locality_lb_setting.as_ref());
    if client.is_empty() || setting.is_some_and(|it| it.enabled == Some(false)) {
        return;
    }
    if let Some(shares) = setting.and_then(|it| it.distribute.iter().find(|it| covers(&it.from, client))) {
        distribute(assignment, &shares.to);
        return;
    }
    // Without outlier detection nobody would notice that the near endpoints fail.
    if effective.outlier_detection.is_some() {
        prioritize(assignment, client, setting);
    }
}

fn distribute(assignment: &mut ClusterLoadAssignment, shares: &std::collections::BTreeMap<String, u32>) {
    let share_of = |it: &core::Locality| {
        shares.iter().find(|(pattern, _)| covers(pattern, &own(it))).map(|(_, share)| *share)
    };
    assignment.endpoints.retain_mut(|group| {
        let share = group.locality.as_ref().and_then(share_of).filter(|it| *it > 0);
        group.load_balancing_weight = share.and_then(number);
        share.is_some()
    });
}

fn prioritize(assignment: &mut ClusterLoadAssignment, client: &Locality, setting: Option<&LocalityLb>) {
    let failover = setting.and_then(|it| it.failover.iter().find(|it| *it.from == *client.region));
    let distance = |it: &core::Locality| -> u32 {
        if it.region != *client.region {
            return if failover.is_some_and(|rule| rule.to != it.region) { 4 } else { 3 };
        }
        if it.zone != *client.zone {
            return 2;
        }
        u32::from(it.sub_zone != *client.subzone)
    };
    let distances: Vec<u32> =
        assignment.endpoints.iter().map(|it| it.locality.as_ref().map_or(4, distance)).collect();
    let mut used = distances.clone();
    used.sort_unstable();
    used.dedup();
    for (group, distance) in assignment.endpoints.iter_mut().zip(distances) {
        // Priorities must have no gaps.
        group.priority =
            used.iter().position(|it| *it == distance).and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
    }
    assignment.endpoints.sort_by_key(|it| it.priority);
}

fn own(locality: &core::Locality) -> Locality {
    Locality {
        region: locality.region.as_str().into(),
        zone: locality.zone.as_str().into(),
        subzone: locality.sub_zone.as_str().into(),
    }
}

/// Whether `region/zone/subzone` with wildcards covers a locality; missing parts cover everything.
fn covers(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    pattern.split('/').zip(parts).all(|(written, part)| written == "*" || written == &**part)
}
