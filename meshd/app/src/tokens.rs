//! Bearer tokens of proxies, checked by the API server and remembered for a short while.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use meshd_ca::{Authenticate, Caller, Refused};
use parking_lot::Mutex;
use policies_api::names::TOKEN_AUDIENCE;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A token that was good is good for this long without asking again; a deleted pod's token dies within it.
const REMEMBERED: Duration = Duration::from_secs(30);
const REMEMBERED_MAX: usize = 10_000;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const USER_PREFIX: &str = "system:serviceaccount:";

/// Asks the API server (`TokenReview`).
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    known: Mutex<HashMap<[u8; 32], (Instant, Caller)>>,
}

impl Reviewer {
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), known: Mutex::default() }
    }

    async fn review(&self, token: String) -> Result<Caller, Refused> {
        let digest: [u8; 32] = Sha256::digest(&token).into();
        let remembered = self
            .known
            .lock()
            .get(&digest)
            .filter(|(since, _)| since.elapsed() < REMEMBERED)
            .map(|(_, caller)| caller.clone());
        if let Some(caller) = remembered {
            return Ok(caller);
        }
        let spec = TokenReviewSpec { token: Some(token), audiences: Some(vec![TOKEN_AUDIENCE.into()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self
            .api
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| Refused::Unavailable(base_types::ErrorChain(&e).to_string()))?;
        let caller = caller(answer)?;
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (since, _)| since.elapsed() < REMEMBERED);
        }
        if known.len() < REMEMBERED_MAX {
            known.insert(digest, (Instant::now(), caller.clone()));
        }
        Ok(caller)
    }
}

impl Authenticate for Reviewer {
    fn authenticate(&self, token: String) -> BoxFuture<'_, Result<Caller, Refused>> {
        Box::pin(self.review(token))
    }
}

/// Who the review says it is: a service account, for our audience, and nothing less.
fn caller(review: TokenReview) -> Result<Caller, Refused> {
    let invalid = |why: &str| Refused::InvalidToken(why.into());
    let status = review.status.ok_or_else(|| invalid("the review has no status"))?;
    if status.authenticated != Some(true) {
        return Err(invalid(status.error.as_deref().unwrap_or("not authenticated")));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(invalid("it is for another audience"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let (namespace, service_account) = name
        .strip_prefix(USER_PREFIX)
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(|| invalid("it is not a service account's"))?;
    let pod = user.extra.unwrap_or_default().remove(POD_NAME).and_then(|mut names| names.pop());
    Ok(Caller { namespace: namespace.into(), service_account: service_account.into(), pod })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

    fn review(authenticated: bool, audience: &str, user: &str) -> TokenReview {
        let extra = [(POD_NAME.to_owned(), vec!["ratings-1".to_owned()])].into();
        TokenReview {
            status: Some(TokenReviewStatus {
                authenticated: Some(authenticated),
                audiences: Some(vec![audience.into()]),
                user: Some(UserInfo {
                    username: Some(user.into()),
                    extra: Some(extra),
                    ..UserInfo::default()
                }),
                error: None,
            }),
            ..TokenReview::default()
        }
    }

    #[test]
    fn only_a_service_account_with_our_audience_is_somebody() {
        let good = caller(review(true, "istio-ca", "system:serviceaccount:default:ratings")).unwrap();
        assert_eq!(
            (good.namespace.as_str(), good.service_account.as_str(), good.pod.as_deref()),
            ("default", "ratings", Some("ratings-1"))
        );
        for bad in [
            review(false, "istio-ca", "system:serviceaccount:default:ratings"),
            review(true, "https://kubernetes.default.svc", "system:serviceaccount:default:ratings"),
            review(true, "istio-ca", "admin"),
            TokenReview::default(),
        ] {
            assert!(caller(bad).is_err());
        }
    }
}
