//! Debian's redis-server on free ports of loopback, alone or three of them as a cluster; killed and started again as a
//! test wishes. Nothing is kept on a disk beyond a server's own end.

use std::process::Command;

use rustix::process::Signal;

use super::leash::{Leash, directory};
use super::{eventually, patiently, port, program};

/// One server.
pub struct Redis {
    pub port: u16,
    more: Vec<String>,
    leash: Option<Leash>,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// With `more` arguments.
    pub fn with(more: &[&str]) -> Redis {
        let more: Vec<String> = more.iter().map(|word| word.to_string()).collect();
        port::retrying("redis-server", || {
            let [port] = port::free();
            Redis { port, more: more.clone(), leash: None }.started()
        })
    }

    fn started(mut self) -> Result<Redis, String> {
        let dir = directory("redis");
        let mut command = Command::new(program("redis-server", "redis-server"));
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--port").arg(self.port.to_string()).arg("--dir").arg(dir.path()).args(&self.more);
        let mut leash = Leash::start(dir, None, &mut command, &[]);
        let up = patiently(|| match leash.ended() {
            Some(_) => Some(false),
            None => self.tells(&["PING"]).is_some_and(|told| told == "PONG" || told.contains("NOAUTH")).then_some(true),
        });
        match up {
            Some(true) => {
                self.leash = Some(leash);
                Ok(self)
            }
            _ => Err(leash.log()),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn leash(&self) -> &Leash {
        self.leash.as_ref().expect("it runs")
    }

    pub fn stop(&self) {
        self.leash().stop();
    }

    pub fn go_on(&self) {
        self.leash().signal(Signal::CONT);
    }

    /// As a crash; what was in it is lost.
    pub fn kill(&mut self) {
        let mut leash = self.leash.take().expect("it runs");
        leash.signal(Signal::KILL);
        eventually("redis-server is gone", || leash.ended());
    }

    pub fn start_again(mut self) -> Redis {
        self.leash = None;
        self.started().unwrap_or_else(|trouble| panic!("redis-server does not start again: {trouble}"))
    }

    /// What it answers to redis-cli, without the last line end.
    pub fn ask(&self, words: &[&str]) -> String {
        self.tells(words).unwrap_or_else(|| panic!("{words:?}: no answer"))
    }

    pub fn tells_with_password(&self, password: &str, words: &[&str]) -> String {
        self.ask(&[&["--no-auth-warning", "-a", password], words].concat())
    }

    fn tells(&self, words: &[&str]) -> Option<String> {
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["-h", "127.0.0.1", "-p"]).arg(self.port.to_string()).args(words);
        let output = command.output().expect("redis-cli starts");
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        output.status.success().then_some(text)
    }
}

/// Three masters that share the slots.
pub struct Cluster(pub [Redis; 3]);

impl Cluster {
    pub fn start() -> Cluster {
        let node = || {
            let [bus] = port::free();
            Redis::with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus.to_string(),
                "--cluster-node-timeout",
                "1000",
            ])
        };
        let nodes = [node(), node(), node()];
        let places = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["--cluster", "create"]).args(&places).arg("--cluster-yes");
        let output = command.output().expect("redis-cli starts");
        assert!(output.status.success(), "{output:?}");
        for node in &nodes {
            eventually("the cluster stands", || {
                node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
            });
        }
        Cluster(nodes)
    }

    /// One node is enough to find the others.
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.0[0].port)
    }
}
