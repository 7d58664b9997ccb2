//! `webpresence subscribe JID...` asks people for their consent (RFC 6121, 3.1): they see the request in their own
//! clients, and accepting it is all there is to do. `webpresence unsubscribe JID...` gives the consent back.

use jid::BareJid;
use tokio::time::Instant;

use super::{Failed, Out, by_identity, run_on, runtime, shared_directory};
use crate::config::Config;
use crate::probe::Consent;
use crate::probe::prober::{Manner, Prober};
use crate::site::Lesson;

/// What is wished of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To see them.
    Subscribe,
    /// To see them no longer.
    Unsubscribe,
}

pub fn subscribe(config: &Config, jids: &[BareJid], wish: Wish, out: Out<'_>) -> Result<(), Failed> {
    let directory = shared_directory(config, log::Level::Error);
    let all_asked = run_on(runtime()?, async {
        let mut all_asked = true;
        for (identity, jids) in by_identity(config, jids) {
            let Some(identity) = identity else {
                all_asked = false;
                for jid in jids {
                    writeln!(out, "{jid}: not asked: none of the [access] domains serves {}", jid.domain())?;
                }
                continue;
            };
            let Lesson { cache, news, task: lesson } = Lesson::of(config, identity, directory.as_deref(), None);
            let manner = Manner {
                news: Some(news),
                ..Manner::of_command(directory.clone()).among_machines(config, log::Level::Warn)
            };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            for jid in jids {
                let deadline = Instant::now() + identity.timeout;
                let consent = match wish {
                    Wish::Subscribe => prober.subscribe(jid.clone(), deadline).await,
                    Wish::Unsubscribe => prober.unsubscribe(jid.clone(), deadline).await,
                };
                all_asked &= consent.is_ok();
                // Whatever has come of it, what was known of him is no longer so.
                cache.forget(jid).await;
                match consent {
                    Ok(consent) => writeln!(out, "{jid}: {}", told(consent, &identity.jid))?,
                    Err(unasked) => writeln!(out, "{jid}: not asked: {unasked}")?,
                }
            }
            drop(prober);
            for task in [task, lesson] {
                task.await.map_err(|error| Failed::Because(error.to_string()))?;
            }
        }
        Ok::<bool, Failed>(all_asked)
    })?;
    if all_asked { Ok(()) } else { Err(Failed::Told) }
}

fn told(consent: Consent, us: &BareJid) -> String {
    match consent {
        Consent::Given => format!("has accepted {us}"),
        Consent::Asked => format!("asked; has to accept {us} in an XMPP client"),
        Consent::StillAsked => {
            format!("was asked within the last hours and has not accepted {us} yet; not asked again")
        }
        Consent::Refused => format!("has refused {us}"),
        Consent::Returned => format!("is no longer seen by {us}"),
    }
}
