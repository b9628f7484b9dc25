//! Sticky splits: the key of the destinations' consistent hash chooses among the weights, too.

use policies_xds::protobuf::BoolValue;
use policies_xds::route::route::Action;
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::weighted_cluster::RandomValueSpecifier;

use crate::proto::number;

/// Sum that the weights are scaled to. It must never change: who is within the first tenth of it stays there when the tenth becomes a fifth.
const TOTAL: u64 = 1_000_000;

/// Lets the route's hash policy choose the destination, if it has one and there is a choice. A cohort grows with its weight as long as
/// the destinations keep their order.
pub(super) fn stick(action: &mut Action) {
    let Action::Route(route) = action else { return };
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &mut route.cluster_specifier else { return };
    if route.hash_policy.is_empty() {
        return;
    }
    let weight = |it: &policies_xds::route::weighted_cluster::ClusterWeight| {
        it.weight.as_ref().map_or(0, |weight| u64::from(weight.value))
    };
    let total: u64 = weighted.clusters.iter().map(weight).sum();
    let (mut sum, mut before) = (0, 0);
    for cluster in &mut weighted.clusters {
        sum += weight(cluster);
        // Both bounds are below 32 bits, and a total of zero was refused before.
        let bound = (sum * TOTAL).checked_div(total).unwrap_or(0);
        cluster.weight = number(u32::try_from(bound - before).unwrap_or(0));
        before = bound;
    }
    weighted.random_value_specifier = Some(RandomValueSpecifier::UseHashPolicy(BoolValue { value: true }));
}

#[cfg(test)]
mod tests {
    use policies_xds::route::route_action::{HashPolicy, hash_policy};
    use policies_xds::route::weighted_cluster::ClusterWeight;
    use policies_xds::route::{RouteAction, WeightedCluster};

    use super::*;

    fn split(weights: &[u32], hashes: bool) -> (Vec<u32>, bool) {
        let key = hash_policy::PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties {
            source_ip: true,
        });
        let cluster = |weight: &u32| ClusterWeight { weight: number(*weight), ..Default::default() };
        let clusters = weights.iter().map(cluster).collect();
        let mut action = Action::Route(RouteAction {
            hash_policy: hashes
                .then_some(HashPolicy { terminal: false, policy_specifier: Some(key) })
                .into_iter()
                .collect(),
            cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters,
                ..Default::default()
            })),
            ..Default::default()
        });
        stick(&mut action);
        let Action::Route(route) = action else { unreachable!() };
        let Some(ClusterSpecifier::WeightedClusters(weighted)) = route.cluster_specifier else {
            unreachable!()
        };
        let weights = weighted.clusters.iter().map(|it| it.weight.as_ref().unwrap().value).collect();
        (weights, weighted.random_value_specifier.is_some())
    }

    #[test]
    fn the_sum_is_always_the_same() {
        assert_eq!(split(&[90, 10], true), (vec![900_000, 100_000], true));
        assert_eq!(split(&[1, 1, 1], true), (vec![333_333, 333_333, 333_334], true));
        let (weights, _) = split(&[u32::MAX / 2, u32::MAX / 3], true);
        assert_eq!(weights.iter().sum::<u32>(), 1_000_000);
        assert_eq!(split(&[90, 10], false), (vec![90, 10], false), "without a key chance decides");
    }
}
