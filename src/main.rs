//! Chooses how to run by the way the process was started, and its exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use webpresence::cli;
use webpresence::gateway::Door;
use webpresence::site::Life;

#[cfg(target_env = "musl")]
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let door = Door::detect(&cli::COMMANDS);
    let args = std::env::args_os();
    match door {
        Door::Person => cli::run(args),
        Door::Activated(listeners) => cli::fastcgi(args.skip(1).collect(), listeners, Life::Resident),
        Door::Inherited(listener) => cli::fastcgi(args.skip(1).collect(), vec![listener], Life::Pooled),
        Door::Cgi => cli::cgi(),
        Door::Nobody => cli::nobody(args),
    }
}
