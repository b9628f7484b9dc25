//! Resource quantities of a container: quality of service, cgroup settings, and the values of `resourceFieldRef`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod;

/// Length of a CPU quota period (kernel default, used by Kubernetes).
pub(crate) const CPU_PERIOD_MICROS: u64 = 100_000;
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_PER_CORE: i128 = 1024;
const CPU_QUOTA_MICROS_MIN: i64 = 1000;

/// The pod's class, which decides who is killed first when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// What the container's cgroup is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) cpu_shares: u64,
    /// CPU time per period of [`CPU_PERIOD_MICROS`]; `None` is unlimited.
    pub(crate) cpu_quota_micros: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
    pub(crate) oom_score_adj: i32,
}

// === impl Qos ===

impl Qos {
    /// The class of `pod` by Kubernetes' rules.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut any = false;
        let mut guaranteed = true;
        for (_, container) in pod::containers(pod) {
            for resource in ["cpu", "memory"] {
                let (request, limit) = (request(container, resource), limit(container, resource));
                any |= request.is_some_and(|value| value > 0) || limit.is_some_and(|value| value > 0);
                guaranteed &=
                    limit.is_some_and(|value| value > 0) && request.is_none_or(|value| Some(value) == limit);
            }
        }
        match (any, guaranteed) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }

    /// The class as the API names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

// === impl Limits ===

impl Limits {
    /// The cgroup settings of `container` on a node with `node_memory_bytes` of memory.
    pub(crate) fn of(pod: &Pod, container: &Container, node_memory_bytes: i64) -> Self {
        let cpu_request = request(container, "cpu").or_else(|| limit(container, "cpu"));
        let shares =
            cpu_request.map_or(0, |milli| milli_of(milli).saturating_mul(CPU_SHARES_PER_CORE) / 1000);
        let quota = limit(container, "cpu").filter(|value| *value > 0).map(|value| {
            let micros = milli_of(value).saturating_mul(i128::from(CPU_PERIOD_MICROS)) / 1000;
            i64::try_from(micros).unwrap_or(i64::MAX).max(CPU_QUOTA_MICROS_MIN)
        });
        Self {
            cpu_shares: u64::try_from(shares).unwrap_or(u64::MAX).clamp(CPU_SHARES_MIN, 262_144),
            cpu_quota_micros: quota,
            memory_bytes: limit(container, "memory").filter(|value| *value > 0).map(whole),
            oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
        }
    }
}

fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i32 {
    match Qos::of(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request =
                request(container, "memory").or_else(|| limit(container, "memory")).map_or(0, whole);
            let share = i128::from(request) * 1000 / i128::from(node_memory_bytes.max(1));
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// A requested amount in nano-units.
fn request(container: &Container, resource: &str) -> Option<i128> {
    amount(container.resources.as_ref()?.requests.as_ref()?, resource)
}

/// A limit in nano-units.
fn limit(container: &Container, resource: &str) -> Option<i128> {
    amount(container.resources.as_ref()?.limits.as_ref()?, resource)
}

fn amount(list: &BTreeMap<String, Quantity>, resource: &str) -> Option<i128> {
    parse(&list.get(resource)?.0)
}

const NANO: i128 = 1_000_000_000;

fn milli_of(nanos: i128) -> i128 {
    nanos.saturating_add(999_999) / 1_000_000
}

fn whole(nanos: i128) -> i64 {
    i64::try_from(nanos.saturating_add(NANO - 1) / NANO).unwrap_or(i64::MAX)
}

/// A Kubernetes quantity in nano-units, rounded up; `None` when it is not one.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let digits =
        text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '+' && c != '-').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let mantissa: i128 = format!("{integer}{fraction}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(denominator)?;
    let nanos = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
    let nanos = nanos.checked_add(scale - 1)? / scale;
    Some(if negative { -nanos } else { nanos })
}

/// The value of a `resourceFieldRef` such as `limits.cpu`, in units of `divisor` and rounded up.
///
/// A missing limit reads as what the node can give.
pub(crate) fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&Quantity>,
    allocatable: &BTreeMap<String, Quantity>,
) -> Option<String> {
    let (list, name) = resource.split_once('.')?;
    let requirements: Option<&ResourceRequirements> = container.resources.as_ref();
    let limits = requirements.and_then(|resources| resources.limits.as_ref());
    let value = match list {
        "limits" => limits.and_then(|list| amount(list, name)).or_else(|| amount(allocatable, name))?,
        "requests" => requirements
            .and_then(|resources| resources.requests.as_ref())
            .and_then(|list| amount(list, name))
            .unwrap_or(0),
        _ => return None,
    };
    let divisor =
        divisor.and_then(|divisor| parse(&divisor.0)).filter(|divisor| *divisor > 0).unwrap_or(NANO);
    Some((value.saturating_add(divisor - 1) / divisor).to_string())
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    parse(&quantity.0).map(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(resources: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "a", "resources": resources})).unwrap()
    }

    fn pod_of(container: &Container) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [container]}})).unwrap()
    }

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("1", Some(NANO)),
            ("100m", Some(NANO / 10)),
            ("1.5", Some(NANO * 3 / 2)),
            ("2Ki", Some(2048 * NANO)),
            ("1e3", Some(1000 * NANO)),
            ("1E", Some(1_000_000_000_000_000_000 * NANO)),
            ("0.0000000001", Some(0)),
            ("", None),
            ("abc", None),
            ("5Q", None),
            ("1e99", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn classes_and_cgroups() {
        let best = container(json!({}));
        assert_eq!(Qos::of(&pod_of(&best)), Qos::BestEffort);
        let limits = Limits::of(&pod_of(&best), &best, 1 << 30);
        assert_eq!((limits.cpu_shares, limits.oom_score_adj, limits.memory_bytes), (2, 1000, None));

        let burst =
            container(json!({"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2"}}));
        assert_eq!(Qos::of(&pod_of(&burst)), Qos::Burstable);
        let limits = Limits::of(&pod_of(&burst), &burst, 1 << 30);
        assert_eq!(
            (limits.cpu_shares, limits.cpu_quota_micros, limits.oom_score_adj),
            (102, Some(200_000), 750)
        );

        let sure = container(json!({"limits": {"cpu": "1", "memory": "64Mi"}}));
        assert_eq!(Qos::of(&pod_of(&sure)), Qos::Guaranteed);
        let limits = Limits::of(&pod_of(&sure), &sure, 1 << 30);
        assert_eq!(
            (limits.memory_bytes, limits.oom_score_adj, limits.cpu_shares),
            (Some(64 << 20), -997, 1024)
        );
    }

    #[test]
    fn fields_default_to_the_node() {
        let node = BTreeMap::from([("cpu".to_owned(), Quantity("2".into()))]);
        let one = container(json!({"limits": {"memory": "64Mi", "cpu": "1500m"}}));
        let milli = Quantity("1m".into());
        let mebi = Quantity("1Mi".into());
        assert_eq!(field(&one, "limits.cpu", None, &node).as_deref(), Some("2"));
        assert_eq!(field(&one, "limits.cpu", Some(&milli), &node).as_deref(), Some("1500"));
        assert_eq!(field(&one, "limits.memory", Some(&mebi), &node).as_deref(), Some("64"));
        assert_eq!(field(&container(json!({})), "limits.cpu", None, &node).as_deref(), Some("2"));
        assert_eq!(field(&one, "requests.memory", None, &node).as_deref(), Some("0"));
        assert_eq!(field(&one, "nonsense", None, &node), None);
    }
}
