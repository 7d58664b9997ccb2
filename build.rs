//! Takes what unwinding needs of GCC's library into the executable, where that can be done: a CGI program is started for
//! each request, and to load `libgcc_s.so.1` as well would be a tenth of its time. Rust asks the linker for `gcc_s`; what
//! it finds first is a linker script that names the static library instead.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name: &str| env::var(name).unwrap_or_default();
    let is_here =
        var("TARGET") == var("HOST") && var("CARGO_CFG_TARGET_ENV") == "gnu" && var("CARGO_CFG_TARGET_OS") == "linux";
    if !is_here || !has_static_library() {
        return;
    }
    let folder = var("OUT_DIR");
    if fs::write(Path::new(&folder).join("libgcc_s.so"), "INPUT ( -lgcc_eh )\n").is_ok() {
        println!("cargo:rustc-link-search=native={folder}");
    }
}

/// GCC answers with a whole path if it has the file, else with the bare name.
fn has_static_library() -> bool {
    let asked = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    asked.is_ok_and(|told| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()).is_absolute())
}
