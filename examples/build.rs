//! Links the examples to libtorch. A program of yours that uses the feature `torch` needs a build script with these lines,
//! and a direct dependency on torch-sys: Cargo tells only direct dependents where libtorch is.

fn main() {
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        // Nothing names a symbol of libtorch_cuda; without this the linker leaves it out, and CUDA with it, in silence.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
