//! The lines of a report: ✓ for what is well, ✗ for what is not, · for what is worth knowing and neither; what to do
//! about a ✗ stands indented below it.

use std::io;
use std::time::Duration;

use super::super::Out;
use super::super::probe::ms;

/// See the module.
pub struct Report<'a> {
    pub out: Out<'a>,
    /// No line has a ✗.
    pub all_well: bool,
}

impl Report<'_> {
    pub fn to(out: Out<'_>) -> Report<'_> {
        Report { out, all_well: true }
    }

    /// A step of the way, and what it took.
    pub fn passed(&mut self, line: &str, took: Duration) -> io::Result<()> {
        self.well(&format!("{line}, {}", ms(took)))
    }

    pub fn well(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "✓ {line}")
    }

    pub fn ill(&mut self, line: &str) -> io::Result<()> {
        self.all_well = false;
        writeln!(self.out, "✗ {line}")
    }

    pub fn plain(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "· {line}")
    }

    pub fn advice(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "  {line}")
    }
}
