//! One running program in a directory of its own, held by `leash.py`: it ends when the value is dropped, and when this
//! process ends in whatever way, which a value in a `static` relies on.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{eventually, program, repository};

/// A server's directory, readable for the user the server runs as.
pub fn directory(name: &str) -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir =
        tempfile::Builder::new().prefix(&format!("webpresence-{name}-")).tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    dir
}

pub struct Leash {
    dir: TempDir,
    logs: Vec<PathBuf>,
    leash: Child,
    /// Closing it ends the program.
    hold: Option<ChildStdin>,
    /// The program's own.
    pub pid: Pid,
}

impl Leash {
    /// Starts `command` in `dir`, as `user` when this process is root's. `logs` are files in `dir` beside what the
    /// program prints.
    pub fn start(dir: TempDir, user: Option<&str>, command: &mut Command, logs: &[&str]) -> Leash {
        let printed = dir.path().join("printed");
        let mut leash = Command::new(program("python3", "python3"));
        leash.arg(repository("tests/rig/leash.py")).arg("--remove").arg("--dir").arg(dir.path());
        leash.args(user.iter().flat_map(|user| ["--as", user])).arg(command.get_program()).args(command.get_args());
        leash.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        leash.stdin(Stdio::piped()).stdout(Stdio::piped());
        leash.stderr(File::create(&printed).expect("the directory is ours"));
        let mut leash = leash.spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(leash.stdout.take().expect("piped")).read_line(&mut line).expect("a pipe");
        let told = || panic!("{command:?}: {}", fs::read_to_string(&printed).unwrap_or_default());
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).unwrap_or_else(told);
        let logs = [printed.clone()].into_iter().chain(logs.iter().map(|log| dir.path().join(log))).collect();
        let hold = leash.stdin.take();
        Leash { dir, logs, leash, hold, pid }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends the program itself a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the program is there until it is dropped");
    }

    /// Stops the program itself; when this returns, none of its threads runs any more.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |task: &Path| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        eventually("the program is stopped", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero())).expect("it is there");
            tasks.flatten().all(|task| is_stopped(&task.path())).then_some(())
        });
    }

    /// Its exit code, if it ended by itself (128 + number for a signal).
    pub fn ended(&mut self) -> Option<i32> {
        self.leash.try_wait().expect("our own child").and_then(|status| status.code())
    }

    /// The last lines of all that it wrote.
    pub fn log(&self) -> String {
        self.logs.iter().map(|file| format!("--- {}\n{}\n", file.display(), tail(file))).collect()
    }
}

/// Enough to see what went wrong.
fn tail(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

impl Drop for Leash {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        drop(self.hold.take());
        // Bounded by leash.py, which ends the program by force where it does not end by itself.
        let _ = self.leash.wait();
    }
}
