//! `webpresence subscribe JID...`: asks people for their consent (RFC 6121, 3.1). They see the request in their own
//! clients; accepting it is all there is to do.

use std::time::Duration;

use jid::BareJid;
use tokio::time::Instant;

use super::{Failed, Out, runtime, shared_directory};
use crate::access;
use crate::config::Config;
use crate::probe::Consent;
use crate::probe::prober::{Manner, Prober};

pub fn subscribe(config: &Config, jids: &[BareJid], out: Out<'_>) -> Result<(), Failed> {
    let directory = shared_directory(config);
    let asked = runtime()?.block_on(async {
        let mut asked = true;
        for jid in jids {
            let Some(identity) = access::serving(config, jid) else {
                writeln!(out, "{jid}: not asked: none of the [access] domains serves {}", jid.domain())?;
                asked = false;
                continue;
            };
            let manner = Manner { directory: directory.clone(), linger: Some(Duration::ZERO), ..Manner::default() };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            match prober.subscribe(jid.clone(), Instant::now() + identity.timeout).await {
                Ok(Consent::Given) => writeln!(out, "{jid}: has accepted {}", identity.jid)?,
                Ok(Consent::Asked) => writeln!(out, "{jid}: asked; has to accept {} in an XMPP client", identity.jid)?,
                Ok(Consent::Refused) => writeln!(out, "{jid}: has refused {}", identity.jid)?,
                Err(unasked) => {
                    writeln!(out, "{jid}: not asked: {}", unasked.failure)?;
                    asked = false;
                }
            }
            drop(prober);
            task.await.map_err(|error| Failed::Because(error.to_string()))?;
        }
        Ok::<bool, Failed>(asked)
    })?;
    if asked { Ok(()) } else { Err(Failed::Told) }
}
