//! What a person wants to know who compares figures.

use std::fs;
use std::process::Command;

/// Processor and kernel.
pub fn hardware() -> String {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        found.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned())).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} ({cores} cores), Linux {}", line("/proc/cpuinfo", "model name"), kernel.trim())
}

/// `prosody 0.12.3-1, ejabberd 23.01-1, webpresence 0.1.0`: as Debian counts.
pub fn versions(packages: &[&str]) -> String {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat", "${Package} ${Version}, "]).args(packages);
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    format!("{}webpresence {}", String::from_utf8_lossy(&output), env!("CARGO_PKG_VERSION"))
}
