//! Writes a bootstrap for each proxy of a cluster with the sample application and the given files, for `envoy --mode validate`.
//!
//! `cargo run -p tests-simulation --example envoy_bootstrap -- OUT_DIR FILE…`

use std::path::Path;

use tests_simulation::{World, bootstrap};

fn main() -> Result<(), std::io::Error> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().unwrap_or_else(|| ".".to_owned());
    let mut world = World::bookinfo();
    for file in arguments {
        world.apply(&std::fs::read_to_string(file)?);
    }
    for workload in ["productpage-v1", "reviews-v1", "ratings-v1", "mesh-system/istio-ingressgateway"] {
        let name = workload.rsplit('/').next().unwrap_or(workload);
        std::fs::write(Path::new(&out).join(format!("{name}.pb")), bootstrap(&world.compile(workload)))?;
    }
    Ok(())
}
