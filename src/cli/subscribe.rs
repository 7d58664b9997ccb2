//! `webpresence subscribe JID...`: asks people for their consent (RFC 6121, 3.1). They see the request in their own
//! clients; accepting it is all there is to do.

use jid::BareJid;
use tokio::time::Instant;

use super::{Failed, Out, by_identity, run_on, runtime, shared_directory};
use crate::config::Config;
use crate::probe::Consent;
use crate::probe::prober::{Manner, Prober};

pub fn subscribe(config: &Config, jids: &[BareJid], out: Out<'_>) -> Result<(), Failed> {
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
            let (prober, task) = Prober::spawn(identity.clone(), Manner::of_command(directory.clone()));
            for jid in jids {
                let consent = prober.subscribe(jid.clone(), Instant::now() + identity.timeout).await;
                all_asked &= consent.is_ok();
                match consent {
                    Ok(Consent::Given) => writeln!(out, "{jid}: has accepted {}", identity.jid)?,
                    Ok(Consent::Asked) => {
                        writeln!(out, "{jid}: asked; has to accept {} in an XMPP client", identity.jid)?;
                    }
                    Ok(Consent::Returned) => writeln!(out, "{jid}: is no longer seen by {}", identity.jid)?,
                    Ok(Consent::Refused) => writeln!(out, "{jid}: has refused {}", identity.jid)?,
                    Err(unasked) => writeln!(out, "{jid}: not asked: {unasked}")?,
                }
            }
            drop(prober);
            task.await.map_err(|error| Failed::Because(error.to_string()))?;
        }
        Ok::<bool, Failed>(all_asked)
    })?;
    if all_asked { Ok(()) } else { Err(Failed::Told) }
}
