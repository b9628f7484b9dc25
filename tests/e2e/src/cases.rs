//! The cases, in the order in which they run.

mod commands;
mod dashboards;
mod echo;
mod first_run;
mod istio_samples;
mod kubectl;
mod life;
mod renewal;
mod resilience;
mod rolling;
mod routing;
mod security;
mod traffic;

use crate::mesh::Mesh;
use anyhow::Result;
use futures::future::LocalBoxFuture;

/// One case. What it returns is printed behind its name.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// It runs only when a checkout of Istio is given.
    pub needs_istio: bool,
    /// The rest cannot run without it.
    pub essential: bool,
    /// What it does.
    pub run: for<'a> fn(&'a Mesh) -> LocalBoxFuture<'a, Result<String>>,
}

macro_rules! case {
    ($name:path) => {
        Case {
            name: stringify!($name),
            essential: false,
            needs_istio: false,
            run: |mesh| Box::pin($name(mesh)),
        }
    };
    (istio $name:path) => {
        Case {
            name: stringify!($name),
            essential: false,
            needs_istio: true,
            run: |mesh| Box::pin($name(mesh)),
        }
    };
    (essential $name:path) => {
        Case {
            name: stringify!($name),
            essential: true,
            needs_istio: false,
            run: |mesh| Box::pin($name(mesh)),
        }
    };
}

/// All cases.
pub fn all() -> Vec<Case> {
    vec![
        case!(essential first_run::up_ends_with_an_application_that_answers),
        case!(first_run::a_second_up_changes_nothing),
        case!(first_run::status_has_what_scripts_need),
        case!(first_run::pods_are_injected_and_need_no_privilege),
        case!(kubectl::every_version_reads_and_writes),
        case!(kubectl::logs_and_exec),
        case!(kubectl::scale_and_rollout),
        case!(kubectl::undo_watch_and_wait),
        case!(kubectl::a_terminal_and_forwarded_ports),
        case!(commands::faults_are_made_listed_and_cleared),
        case!(commands::a_canary_is_one_command),
        case!(commands::apply_takes_files_and_standard_input),
        case!(commands::proxies_show_what_they_have),
        case!(commands::figures_versions_and_completion),
        case!(traffic::requests_between_sidecars_are_mutual_tls),
        case!(traffic::samples_apply_and_do_what_they_say),
        case!(traffic::a_canary_loses_no_request_and_keeps_its_weights),
        case!(traffic::an_invalid_file_is_refused_whole),
        case!(istio istio_samples::every_published_file_applies),
        case!(dashboards::every_panel_has_data_and_rules_evaluate),
        case!(routing::routes_rewrite_redirect_and_change_headers),
        case!(routing::websockets_pass),
        case!(routing::plain_tcp_passes),
        case!(resilience::faults_come_by_share_and_header),
        case!(resilience::a_route_times_out),
        case!(resilience::retries_are_as_many_as_asked),
        case!(resilience::connection_pools_overflow_and_recover),
        case!(resilience::outliers_are_ejected_and_come_back),
        case!(resilience::mirrors_see_their_share_and_hurt_nobody),
        case!(security::plain_callers_are_refused_under_strict),
        case!(security::the_server_sees_who_calls),
        case!(security::authorization_denies_and_allows),
        case!(security::ambiguous_requests_go_nowhere),
        case!(security::keys_of_workloads_are_on_no_disk),
        case!(renewal::certificates_are_renewed_under_load),
        case!(resilience::meshd_away_loses_no_request),
        case!(rolling::rolling_updates_lose_no_request),
        case!(life::a_second_cluster_on_the_same_ports_is_refused),
        case!(life::a_person_who_is_not_root_is_told_so),
        case!(life::down_during_up_leaves_nothing),
        case!(life::a_missing_image_and_a_crash_are_explained),
        case!(life::a_killed_cluster_process_restarts_no_container),
        case!(life::stop_and_up_find_everything_again),
        case!(life::down_leaves_nothing),
    ]
}
