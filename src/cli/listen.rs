//! `webpresence listen [--for SECONDS]`: holds the session of every identity, so that people can opt in from their own
//! clients while no daemon does it, and tells what they do.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{Failed, Out, run_on, runtime, shared_directory};
use crate::config::{Config, Identity};
use crate::gateway::signals::Signals;
use crate::presence::State;
use crate::probe::Event;
use crate::probe::guests::Order;
use crate::probe::prober::{Manner, Opening, Prober};
use crate::probe::steps::{Stage, Steps};
use crate::site::Lesson;

/// How long without `--for`: until somebody ends it, as far as a clock can count.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

pub fn listen(config: &Config, time: Option<Duration>, out: Out<'_>) -> Result<(), Failed> {
    let directory = shared_directory(config, log::Level::Error);
    run_on(runtime()?, async {
        let end = Instant::now() + time.unwrap_or(LONG);
        let mut signals = Signals::listen()?;
        let (news, mut heard) = unbounded_channel();
        let mut held: Vec<(Prober, [JoinHandle<()>; 2])> = Vec::new();
        let mut all_held = true;
        for identity in &config.identities {
            let (listener, steps) = unbounded_channel();
            if !identity.accept_subscriptions {
                let us = &identity.jid;
                writeln!(out, "{us}: takes no offers: accept_subscriptions = yes in its section of the configuration")?;
                all_held = false;
                continue;
            }
            let next = Some(news.clone());
            let Lesson { news, task: lesson, .. } = Lesson::of(config, identity, directory.as_deref(), next);
            let manner = Manner {
                linger: None,
                opening: Opening::Always,
                steps: Steps::told_to(listener),
                news: Some(news),
                ..Manner::of_command(directory.clone()).among_machines(config, log::Level::Warn)
            };
            let (prober, task) = Prober::spawn(identity.clone(), manner);
            all_held &= begin(identity, &prober, steps, out).await?;
            held.push((prober, [task, lesson]));
        }
        drop(news);
        loop {
            tokio::select! {
                event = heard.recv() => match event {
                    Some(event) => tell(event, out)?,
                    None => break,
                },
                _ = signals.next() => break,
                () = sleep_until(end) => break,
            }
        }
        for (prober, tasks) in held {
            drop(prober);
            for task in tasks {
                task.await.map_err(|error| Failed::Because(error.to_string()))?;
            }
        }
        if all_held { Ok(()) } else { Err(Failed::Told) }
    })
}

/// Says whether the session is there, by a question that goes all of the way; false if it is not.
async fn begin(
    identity: &Identity,
    prober: &Prober,
    mut steps: UnboundedReceiver<(Instant, Stage)>,
    out: Out<'_>,
) -> io::Result<bool> {
    let us = &identity.jid;
    if let Err(unasked) = prober.ask(identity.home(), Instant::now() + identity.timeout).await {
        writeln!(out, "{us}: {unasked}; it is tried again")?;
        return Ok(false);
    }
    let mut is_relayed = false;
    while let Ok((_, stage)) = steps.try_recv() {
        is_relayed |= stage == Stage::Relayed;
    }
    match is_relayed {
        true => writeln!(out, "{us}: another process holds its session, and takes what people offer if it may")?,
        false => writeln!(out, "{us}: people can add it to their contacts now")?,
    }
    Ok(true)
}

fn tell(event: Event, out: Out<'_>) -> io::Result<()> {
    match event {
        Event::Offer(jid) => writeln!(out, "{jid}: has added us, is let in and asked back"),
        Event::Order(_, Order::Help) => Ok(()),
        Event::Order(jid, order) => writeln!(out, "{jid}: has told us: {}", order.name()),
        Event::Consented(jid) => writeln!(out, "{jid}: has accepted"),
        Event::Changed(jid, presence) if presence.state == State::Forbidden => writeln!(out, "{jid}: has refused"),
        Event::Changed(..) => Ok(()),
    }
}
