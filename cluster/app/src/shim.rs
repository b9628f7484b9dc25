//! The parent process of each container, as a program of its own: small, because there is one for every container.

fn main() {
    cluster_containers::shim_main(std::env::args().skip(1).collect())
}
