//! The shaders are built into the crate as a folder, and cargo does not see by itself that a file was added to it.

fn main() {
    println!("cargo::rerun-if-changed=shaders");
}
