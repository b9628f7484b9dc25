//! Refuses policies that cannot mean anything, with field, reason and fix; odd ones get warnings.

use crate::review::{Answer, Request};
use policies_api::validate::{Problem, Severity, validate};

/// Kubernetes' status for an object whose content is wrong.
const UNPROCESSABLE: u16 = 422;

/// Answers a review about a policy object.
#[must_use]
pub fn object(request: &Request) -> Answer {
    // Kinds that are not ours, and deletions, are none of our business.
    let problems = validate(&request.object).unwrap_or_default();
    let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
        problems.iter().partition(|p| p.severity == Severity::Error);
    if errors.is_empty() {
        return Answer::Allow(warnings.into_iter().map(text).collect());
    }
    let all: Vec<String> = errors.into_iter().map(text).collect();
    Answer::Deny { code: UNPROCESSABLE, message: all.join("; ") }
}

fn text(problem: &Problem) -> String {
    let code = problem.code.map(|code| format!("{code} ")).unwrap_or_default();
    format!("{code}{}: {} ({})", problem.path, problem.reason, problem.fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn review(spec: &serde_json::Value) -> Answer {
        let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "b"}, "spec": spec});
        let body = json!({"apiVersion": "admission.k8s.io/v1", "request": {"uid": "1", "operation": "CREATE", "object": object}});
        super::object(&Request::parse(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_good_policy_passes_and_a_bad_one_is_named() {
        let route = |weights: [i64; 2]| {
            json!({"hosts": ["r"], "http": [{"route": [
                {"destination": {"host": "r", "subset": "v1"}, "weight": weights[0]}, {"destination": {"host": "r", "subset": "v2"}, "weight": weights[1]},
            ]}]})
        };
        assert!(matches!(review(&route([90, 10])), Answer::Allow(_)));
        let Answer::Deny { message, .. } = review(&route([0, 0])) else {
            panic!("weights of zero were allowed")
        };
        assert!(
            message.contains("spec.http[0]") && message.contains("total destination weight = 0"),
            "{message}"
        );
        assert!(
            matches!(review(&json!({"hosts": ["r"], "htp": []})), Answer::Deny { .. }),
            "an unknown field must be refused"
        );
    }
}
