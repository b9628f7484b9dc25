//! Istio's own sample files for bookinfo, from a checkout that the person gives: each is applied unchanged, and does what Istio's
//! documentation says of it.

use super::{
    echo::ensure_share,
    traffic::{page_reviews, stars},
};
use crate::{load::Outside, mesh::Mesh};
use anyhow::{Context, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What a file is documented to do to the page, once the destination rules are there.
enum Effect {
    /// Shares of the versions of reviews, in percent.
    Shares(&'static [(&'static str, f64)]),
    /// The version of reviews that jason sees, and the one that others see.
    Jason(&'static str, &'static str),
    /// The ratings of reviews v2 fail for jason at once.
    Abort,
    /// Reviews are not waited for as long as jason's ratings take.
    Delay,
    /// The product's details fail.
    Details,
}

const EFFECTS: [(&str, Effect); 11] = [
    ("fault-injection-details-v1.yaml", Effect::Details),
    ("virtual-service-all-v1.yaml", Effect::Shares(&[("v1", 100.0)])),
    ("virtual-service-ratings-test-abort.yaml", Effect::Abort),
    ("virtual-service-ratings-test-delay.yaml", Effect::Delay),
    ("virtual-service-reviews-50-v3.yaml", Effect::Shares(&[("v1", 50.0), ("v3", 50.0)])),
    ("virtual-service-reviews-80-20.yaml", Effect::Shares(&[("v1", 80.0), ("v2", 20.0)])),
    ("virtual-service-reviews-90-10.yaml", Effect::Shares(&[("v1", 90.0), ("v2", 10.0)])),
    ("virtual-service-reviews-jason-v2-v3.yaml", Effect::Jason("v2", "v3")),
    ("virtual-service-reviews-test-v2.yaml", Effect::Jason("v2", "v1")),
    ("virtual-service-reviews-v2-v3.yaml", Effect::Shares(&[("v2", 50.0), ("v3", 50.0)])),
    ("virtual-service-reviews-v3.yaml", Effect::Shares(&[("v3", 100.0)])),
];
/// Files that others rest on: they stay applied.
const BASE: [&str; 2] = ["bookinfo-gateway.yaml", "destination-rule-all.yaml"];
/// The faults are documented for a jason who sees stars.
const STARS_FOR_JASON: &str = "virtual-service-reviews-test-v2.yaml";
/// A namespace that files name, and one for the others.
const NAMESPACES: [&str; 2] = ["istio-system", "istio-samples"];
const PAGES: usize = 1_000;

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut all: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    all.sort();
    ensure!(!all.is_empty(), "no YAML in {}", folder.display());
    Ok(all)
}

pub async fn every_published_file_applies(mesh: &Mesh) -> Result<String> {
    let samples = mesh.istio.as_ref().context("no checkout was given")?.join("samples/bookinfo");
    for namespace in NAMESPACES {
        mesh.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n"))?;
    }
    let folder = samples.join("networking");
    let apply = |name: &str| mesh.meshctl(&["apply", "-f", &folder.join(name).display().to_string()]);
    let delete = |name: &str| {
        mesh.meshctl(&["delete", "--ignore-not-found", "-f", &folder.join(name).display().to_string()])
    };
    let (mut wrong, mut applied, mut proved) = (Vec::new(), 0, 0);
    for file in files(&folder)? {
        let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
        BASE.iter().try_for_each(|base| apply(base).map(drop))?;
        let effect = EFFECTS.iter().find(|(file, _)| *file == name).map(|(_, effect)| effect);
        if matches!(effect, Some(Effect::Abort | Effect::Delay)) {
            apply(STARS_FOR_JASON)?;
        }
        match apply(&name) {
            Ok(_) => applied += 1,
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
        if let Some(effect) = effect {
            match check(effect).await {
                Ok(()) => proved += 1,
                Err(error) => wrong.push(format!("{name}: {error:#}")),
            }
        }
        for name in [name.as_str(), STARS_FOR_JASON] {
            if !BASE.contains(&name) {
                delete(name)?;
            }
        }
    }
    let (taken, unknown) = platform(mesh, &samples.join("platform/kube"), &mut wrong)?;
    for namespace in NAMESPACES {
        mesh.kubectl(&["delete", "namespace", namespace])?;
    }
    for name in BASE {
        mesh.meshctl(&["apply", "-f", &Mesh::sample(name)])?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n    "));
    Ok(format!(
        "{applied} policy files, {proved} with their documented effect; {taken} files of workloads, {unknown} of kinds that are not there"
    ))
}

async fn check(effect: &Effect) -> Result<()> {
    let outside = Outside::new();
    let see = async |headers: &[(&str, &str)]| outside.get("bookinfo", "/productpage", headers).await;
    let jason = [("end-user", "jason")];
    let text = |page: &http::Response<bytes::Bytes>| String::from_utf8_lossy(page.body()).into_owned();
    match effect {
        Effect::Shares(shares) => {
            let tally = outside.many("bookinfo", "/productpage", PAGES, 8, stars).await;
            ensure!(tally.bad() == 0, "{tally:?}");
            for (version, percent) in *shares {
                ensure_share(version, tally.classes.get(*version).copied().unwrap_or(0), PAGES, *percent)
                    .with_context(|| format!("{:?}", tally.classes))?;
            }
        }
        Effect::Jason(his, theirs) => {
            for _ in 0..20 {
                ensure!(stars(&see(&jason).await?.0) == *his && stars(&see(&[]).await?.0) == *theirs);
            }
        }
        Effect::Abort => {
            let page = text(&see(&jason).await?.0);
            ensure!(page.contains("Ratings service is currently unavailable"), "{page}");
            ensure!(!text(&see(&[]).await?.0).contains("unavailable"), "others see the fault");
        }
        Effect::Delay => {
            let (page, took) = see(&jason).await?;
            ensure!(!page_reviews(&page) && took > Duration::from_secs(5), "after {took:?}: {}", text(&page));
            let (page, took) = see(&[]).await?;
            ensure!(page_reviews(&page) && took < Duration::from_secs(3), "others wait {took:?}");
        }
        Effect::Details => {
            let page = text(&see(&[]).await?.0);
            ensure!(page.contains("Error fetching product details!"), "{page}");
        }
    }
    Ok(())
}

/// Applies the files of workloads; their images are not here, so nothing of them runs. Returns how many were taken, and how many have kinds
/// that the cluster does not know.
fn platform(mesh: &Mesh, folder: &Path, wrong: &mut Vec<String>) -> Result<(usize, usize)> {
    let (mut taken, mut unknown) = (0, 0);
    for file in files(folder)? {
        let file = file.display().to_string();
        match mesh.kubectl(&["apply", "-n", NAMESPACES[1], "-f", &file]) {
            Ok(_) => taken += 1,
            Err(error) if format!("{error:#}").contains("no matches for kind") => unknown += 1,
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if taken == 0 {
        bail!("no file in {} was taken", folder.display());
    }
    Ok((taken, unknown))
}
