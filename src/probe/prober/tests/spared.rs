//! What the holder does not ask: because it was told, because too much is asked, and when it asks all the same.

use super::*;
use crate::config::Limits;
use crate::presence::State;
use crate::probe::choices::Choices;
use crate::probe::guests::Order;

/// With lines in `[access]`.
fn identity(port: u16, access: &str) -> Identity {
    component_with(port, &format!("[access]\n{access}"))
}

const OPEN: &str = "visibility = anyone\n";

/// Lets time pass, and everybody do what is due then.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Whoever is not shown, or not to everybody, or asked about by a person at a terminal, is asked about each time: from the
/// time nobody learns that he is watched.
#[tokio::test]
async fn only_who_is_shown_to_everybody_is_told_of_without_asking() {
    let cautious = |caution| Manner { caution, ..Manner::default() };
    let rows = [
        (OPEN, Caution::Web, None, 1),
        ("visibility = subscribers\n", Caution::Web, None, 3),
        ("visibility = anyone\ndeny = bob@example.com\n", Caution::Web, None, 3),
        ("visibility = anyone\nallow = eve@example.com\n", Caution::Web, None, 3),
        (OPEN, Caution::Person, None, 3),
        (OPEN, Caution::Web, Some(Order::Off), 3),
        (OPEN, Caution::Web, Some(Order::Coarse), 1),
    ];
    for (access, caution, order, probes) in rows {
        let (listener, port) = listen().await;
        let (town, directory) = (Server::serve(listener, shown), tempfile::tempdir().expect("a temporary directory"));
        let identity = identity(port, access);
        if let Some(order) = order {
            Choices::new(Some(directory.path())).take(&identity.jid, &bob(), order).expect("it is ours");
        }
        let manner = Manner { directory: Some(directory.path().to_owned()), ..cautious(caution) };
        let (prober, _task) = Prober::spawn(identity, manner);
        for _ in 0..3 {
            let state = prober.ask(bob(), within(LONG)).await.expect("an answer").presence.state;
            let expected = if order == Some(Order::Off) { State::Forbidden } else { State::Available };
            assert_eq!(state, expected, "{access} {order:?}");
        }
        assert_eq!(town.probes(), probes, "{access} {caution:?} {order:?}");
    }
}

/// A session lingers behind the last answer, from wherever it came.
#[tokio::test]
async fn a_session_lingers_behind_what_was_not_asked() {
    let (listener, port) = listen().await;
    let town = Server::serve(listener, shown);
    let manner = Manner { linger: Some(Duration::from_secs(20)), ..Manner::default() };
    let (prober, _task) = Prober::spawn(identity(port, OPEN), manner);
    for _ in 0..4 {
        prober.ask(bob(), within(LONG)).await.expect("an answer");
        pass(Duration::from_secs(12)).await;
    }
    assert_eq!((town.sessions(), town.probes()), (1, 1));
    pass(Duration::from_secs(12)).await;
    prober.ask(bob(), within(LONG)).await.expect("an answer");
    assert_eq!((town.sessions(), town.probes()), (2, 2));
}

/// One more than there is room for is told so at once, and the next one when there is.
#[tokio::test]
async fn a_process_has_so_many_questions_open() {
    let (listener, port) = listen().await;
    let limits = Limits { lookups: 2, ..Limits::default() };
    let manner = Manner { lookups: Lookups::new(limits), limits, ..Manner::default() };
    // Two identities of one process share the room.
    let [one, other] = [(); 2].map(|()| Prober::spawn(identity(port, OPEN), manner.clone()).0);
    let first = tokio::spawn(async move { one.ask(user(1), within(LONG)).await });
    let mut socket = greet(&listener).await;
    let patient = tokio::spawn({
        let other = other.clone();
        async move { other.ask(user(2), within(LONG)).await }
    });
    let mut second = greet(&listener).await;
    let crowded = other.ask(user(3), within(LONG)).await.expect_err("there is no room");
    assert_eq!((crowded.failure, crowded.retry_after), (Failure::Crowded, Duration::from_secs(1)));
    let refusal =
        |name: &str| format!("<presence type='unsubscribed' from='{name}@example.com' to='presence.example.com'/>");
    for (socket, name) in [(&mut socket, "user1"), (&mut second, "user2")] {
        socket.write_all(format!("<handshake/>{}", refusal(name)).as_bytes()).await.expect("an open connection");
    }
    assert!(first.await.expect("no panic").is_ok() && patient.await.expect("no panic").is_ok());
    let (third, ()) = tokio::join!(other.ask(user(3), within(LONG)), async {
        read_until(&mut second, "xmpp:ping").await;
        second.write_all(refusal("user3").as_bytes()).await.expect("an open connection");
    });
    assert!(third.is_ok(), "{third:?}");
}

/// Five are asked about at once and one in each second, in their order. Whose turn does not come in time is told so, and
/// the session goes on.
#[tokio::test]
async fn a_session_asks_about_so_many_in_a_second() {
    let (listener, port) = listen().await;
    let town = Server::serve(listener, shown);
    let limits = Limits { probes_per_second: 1, ..Limits::default() };
    let (prober, _task) = Prober::spawn(identity(port, OPEN), Manner { limits, ..Manner::default() });
    let ask = |number| {
        let prober = prober.clone();
        tokio::spawn(async move { prober.ask(user(number), within(Duration::from_millis(1700))).await })
    };
    let mut asked: Vec<_> = (0..7).map(ask).collect();
    let last = asked.split_off(5);
    for answer in asked {
        assert!(answer.await.expect("no panic").is_ok());
    }
    assert_eq!(town.probes(), 5);
    // Whoever is watched needs no turn.
    assert!(ask(3).await.expect("no panic").is_ok());
    let mut answers = Vec::new();
    for answer in last {
        answers.push(answer.await.expect("no panic").map_err(|unasked| unasked.failure).map(drop));
    }
    assert_eq!(answers, [Ok(()), Err(Failure::Crowded)]);
    assert_eq!((town.probes(), town.sessions()), (6, 1));
    pass(Duration::from_secs(5)).await;
    assert!(ask(6).await.expect("no panic").is_ok());
    assert_eq!((town.probes(), town.sessions()), (7, 1));
}

/// Everybody who asks about the same person at the same time takes part in one question.
#[tokio::test]
async fn the_same_person_is_asked_about_once_at_a_time() {
    let (listener, port) = listen().await;
    let (prober, _task) = Prober::spawn(identity(port, "visibility = subscribers\n"), Manner::default());
    let ask = || {
        let prober = prober.clone();
        tokio::spawn(async move { prober.ask(bob(), within(LONG)).await })
    };
    let asked: Vec<_> = (0..10).map(|_| ask()).collect();
    let mut socket = greet(&listener).await;
    socket.write_all(b"<handshake/>").await.expect("an open connection");
    let late: Vec<_> = (0..10).map(|_| ask()).collect();
    // Somebody else is asked about behind them all.
    let behind = tokio::spawn({
        let prober = prober.clone();
        async move { prober.ask(user(1), within(LONG)).await }
    });
    let said = read_until(&mut socket, "xmpp:ping").await;
    assert_eq!(said.matches("type='probe'").count(), 1, "{said}");
    for name in ["bob", "user1"] {
        let refusal = format!("<presence type='unsubscribed' from='{name}@example.com' to='presence.example.com'/>");
        socket.write_all(refusal.as_bytes()).await.expect("an open connection");
    }
    for answer in asked.into_iter().chain(late).chain([behind]) {
        assert_eq!(answer.await.expect("no panic").map(|answer| answer.why), Ok(Why::Refused));
    }
}
