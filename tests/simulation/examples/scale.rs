//! How long compilation takes for one proxy of a large mesh: `cargo run --release -p tests-simulation --example scale -- SERVICES`

use std::fmt::Write;
use std::time::Instant;

use meshd_compile::{compile, compile_endpoints};
use meshd_model::{Change, ChangeKind};
use tests_simulation::World;

fn main() -> Result<(), std::num::ParseIntError> {
    let services: u32 = std::env::args().nth(1).unwrap_or_else(|| "1000".to_owned()).parse()?;
    let mut world = World::new();
    for index in 0..services {
        let mut yaml = String::new();
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{index}}}\nspec: {{selector: {{app: s{index}}}, ports: [{{port: 80, name: http}}]}}\n\
             ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: s{index}}}\nspec: {{replicas: 2, template: {{metadata: {{labels: {{app: s{index}}}}}, spec: {{serviceAccountName: s{index}}}}}}}\n"
        );
        world.apply(&yaml);
    }
    let proxy = world.proxy("default/s0");
    let snapshot = world.snapshot();
    let begin = Instant::now();
    let first = compile(&snapshot, &proxy);
    let whole = begin.elapsed();
    let mut change = Change::default();
    change.add(ChangeKind::Endpoints, "default", "s1.default.svc.cluster.local");
    let begin = Instant::now();
    let again = compile_endpoints(&snapshot, &proxy, &first, &change);
    let fast = begin.elapsed();
    let bytes: usize = [&first.clusters, &first.endpoints, &first.listeners, &first.routes]
        .iter()
        .flat_map(|it| it.values())
        .map(|it| it.value.len())
        .sum();
    println!(
        "{services} services: everything {whole:?}, one host's endpoints {fast:?}, {bytes} bytes, same: {}",
        again == first
    );
    Ok(())
}
