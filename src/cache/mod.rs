//! What is known about people, and for how long it may be told.

use std::time::Duration;

use crate::presence::Presence;

/// What a request gets to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Known, and how long ago it was asked. Older than `ttl` means: served while a lookup renews it, or because
    /// the server cannot be asked.
    Known { presence: Presence, age: Duration },
    /// The XMPP server could not be asked and nothing usable is remembered.
    Nothing { retry_after: Duration },
}
