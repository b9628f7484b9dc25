//! Validates files of policy objects, compiles each with the sample application, and lets the sidecar's model take it.
//!
//! `cargo run -p tests-simulation --example check_files -- FILE…`

use policies_api::{document, validate};
use tests_simulation::World;

fn main() -> Result<(), std::io::Error> {
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file)?;
        let documents = match document::parse(&text) {
            Ok(documents) => documents,
            Err(error) => {
                println!("{file}: not YAML: {error}");
                continue;
            }
        };
        for document in &documents {
            for problem in validate::validate(&document.value).unwrap_or_default() {
                let line = document.positions.locate(&problem.path).map_or(0, |it| it.line);
                println!(
                    "{file}:{line}: {:?} {}: {} ({})",
                    problem.severity, problem.path, problem.reason, problem.fix
                );
            }
        }
        let mut world = World::bookinfo();
        world.apply(&text);
        for workload in ["productpage-v1", "reviews-v2", "mesh-system/istio-ingressgateway"] {
            let snapshot = world.sidecar(workload);
            if snapshot.clusters.is_empty() {
                println!("{file}: nothing for {workload}");
            }
        }
        for (id, version) in &world.snapshot().policies.versions {
            if let Some(why) = &version.invalid {
                println!("{file}: {id:?} is invalid: {why}");
            }
        }
    }
    Ok(())
}
