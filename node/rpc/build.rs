//! Compiles the protocol with `protox`, so that no `protoc` needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors =
        protox::compile(["arca/node/v1/node.proto", "arca/replication/v1/replication.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
