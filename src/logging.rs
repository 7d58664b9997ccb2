//! Where log lines go and what they look like. One line for what an admin has to know; no password and no stanza's
//! text is ever in one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use env_logger::{Builder, Target};
use log::Level;

use crate::config::{LogSettings, LogTarget};

/// Begins logging. A second call, as by a test or a reload, changes nothing.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    let mut builder = Builder::new();
    builder.filter(Some("webpresence"), settings.level);
    match &settings.target {
        LogTarget::Stderr => {
            builder.format(|out, record| writeln!(out, "webpresence: {}: {}", record.level(), record.args()));
        }
        LogTarget::Syslog => {
            builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
        }
        LogTarget::File(path) => {
            let file = Appender(path.clone());
            file.open()
                .map_err(|error| io::Error::new(error.kind(), format!("cannot log to {}: {error}", path.display())))?;
            builder.target(Target::Pipe(Box::new(file)));
            builder.format(|out, record| {
                let now = out.timestamp_seconds();
                writeln!(out, "{now} {}: {}", record.level(), record.args())
            });
        }
    }
    // Only a logger that is there already makes this fail.
    let _ = builder.try_init();
    Ok(())
}

/// Opens its file for each line: there are few, and a file that was rotated away is left alone. It names people who are
/// asked about, so that others may not read it.
struct Appender(PathBuf);

impl Appender {
    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(&self.0)
    }
}

impl Write for Appender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.open()?.write_all(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The prefix that systemd's journal reads on stderr (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
