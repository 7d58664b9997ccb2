//! What one visitor gets to see of one person, by the configuration. What the person himself wants is in every answer
//! already.

use crate::access;
use crate::cache::Sight;
use crate::config::{Access, Identity, Shown};
use crate::presence::State;
use crate::strangers::Pair;

/// See the module.
pub struct Sieve<'a> {
    access: &'a Access,
    pair: &'a Pair,
    shown: Shown,
    /// By the lists of the configuration. He is looked up all the same, since nobody is to learn who is in them.
    pub is_excluded: bool,
}

impl<'a> Sieve<'a> {
    pub fn new(identity: &'a Identity, pair: &'a Pair) -> Sieve<'a> {
        let (access, shown) = (&identity.access, identity.privacy.of(&pair.target));
        Sieve { access, pair, shown, is_excluded: access::is_excluded(access, &pair.target) }
    }

    pub fn passes(&self, sight: &Sight) -> bool {
        let Pair { target, asker } = self.pair;
        let is_shown = sight.presence.state != State::Forbidden && !self.is_excluded;
        is_shown && access::may_see(self.access, target, asker, sight.viewers.as_ref())
    }

    pub fn shows_picture(&self) -> bool {
        self.shown.avatar && !self.shown.coarse
    }

    /// What is told of what passes.
    pub fn told(&self, sight: Sight) -> Sight {
        let Sight { presence, picture, .. } = sight;
        let picture = picture.filter(|_| self.shows_picture());
        Sight { picture, ..Sight::bare(self.shown.of(presence)) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jid::BareJid;

    use super::*;
    use crate::access::Asker;
    use crate::presence::{Picture, Presence};

    /// The configuration, whether bob passes by it where nobody in particular asks, and whether his picture is told.
    #[test]
    fn what_passes_is_told_as_the_configuration_says() {
        let anyone = "[access]\nvisibility = anyone\n";
        for (access, passes, is_pictured) in [
            (anyone.to_owned(), true, true),
            (format!("{anyone}deny = bob@example.com\n"), false, true),
            (format!("{anyone}[privacy]\ncoarse = yes\n"), true, false),
            (format!("{anyone}[privacy]\nshow_avatar = no\n"), true, false),
            ("[access]\nvisibility = subscribers\n".to_owned(), false, true),
        ] {
            let text = format!("[xmpp]\njid = p.example.com\npassword = x\n{access}");
            let config = crate::config::parse(&text, Path::new("test.ini")).expect("a configuration");
            let pair = Pair { target: BareJid::new("bob@example.com").expect("a bare JID"), asker: Asker::Nobody };
            let sieve = Sieve::new(&config.identities[0], &pair);
            let bare = |state| Sight::bare(Presence::bare(state));
            let seen = Sight { picture: Picture::new(&[1]), ..bare(State::Available) };
            assert_eq!(sieve.passes(&seen), passes, "{access}");
            assert!(!sieve.passes(&bare(State::Forbidden)), "{access}");
            assert_eq!(sieve.told(seen).picture.is_some(), is_pictured, "{access}");
        }
    }
}
