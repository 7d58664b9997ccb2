//! `type=text`: one line for people and for programs that compare it.

use super::words::Wording;
use crate::presence::Presence;

pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// The status text in one line, else the state's word. Never empty.
///
/// COMPAT: the original said `null` where it told nothing, and pages compare with that; nobody's status may claim it.
pub fn text(presence: &Presence, wording: Wording) -> String {
    let line = wording.line(presence).filter(|line| line != "null");
    line.unwrap_or_else(|| wording.word(presence.state).to_owned()) + "\n"
}
