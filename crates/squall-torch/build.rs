//! Links the tests of this crate to libtorch. Cargo hands link arguments to the package's own targets only, so a program
//! that uses squall-torch has a build script with the same lines: see `examples/build.rs`.

fn main() {
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        // Nothing names a symbol of libtorch_cuda; without this the linker leaves it out, and CUDA with it, in silence.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
