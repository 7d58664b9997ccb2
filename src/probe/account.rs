//! What one login of an account leaves to the next: what its server offers and how fast it may be told things, which
//! installation we are to it, and the token it gave. The session works on it; [`super::facts`] keeps it.

use serde::{Deserialize, Serialize};

use super::fast::Token;
use super::features::Offer;
use super::login::Mechanism;
use super::scram::Salted;

/// See the module.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// As of the last login that succeeded; gone if one failed since, so that the next one waits and looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// The strongest SCRAM that was ever offered over TLS that proved the server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strongest: Option<Mechanism>,
    pub pace: Pace,
    /// The id of this installation (XEP-0388, 2.3.1): servers tell our sessions and tokens by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// As good as the password, and never written down.
    #[serde(skip)]
    pub salted: Option<Salted>,
}

impl Account {
    /// The server wants less at a time, from now on.
    pub fn slow_down(&mut self, pace: Pace) {
        self.pace = self.pace.max(pace);
    }
}

/// How much a server may be sent before it has answered what came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pace {
    /// All that may go together goes together.
    #[default]
    Swift,
    /// No question before the resource is bound.
    BoundFirst,
    /// COMPAT: nor the login before the features. jabberd2 wants both.
    FeaturesFirst,
}
