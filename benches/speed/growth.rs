//! How the cost grows: the same comparisons with other numbers of connections, and of people who are asked for.

use crate::Plan;
use crate::crowd::{self, jid};
use crate::paths::{CGI, FCGID_MOST, FCGID_MS, Field, RATIOS, Ratio, Server, WAYS, Way, p99, p99_row};
use crate::rounds::Rounds;
use crate::rows::{Findings, Row, Section, Target, Unit, row};
use crate::spawn;
use crate::stand::{Stand, UNTHROTTLED};
use crate::standin;
use crate::web::Room;

/// Beside the 16 of the first table.
pub const CONNECTIONS: [usize; 2] = [1, 256];
pub const PEOPLE: [usize; 3] = [100, 10_000, 100_000];

/// Those who tell who is asked for, or do not mind; ejabberd's module where it has as many accounts.
const BY_PEOPLE: [Way; 8] =
    [Way::Static, Way::Ceiling, Way::Direct, Way::Unchanged, Way::Kept, Way::Prosody, Way::Fcgid, Way::FcgidHello];
/// Who fills what keeps answers.
const FILL_CONNECTIONS: usize = 16;
const FILL_SECONDS: usize = 2;
/// So many runs, and no filling is that slow.
const FILLS: usize = 90;

pub fn connections_section() -> Section {
    let counts = CONNECTIONS.into_iter();
    let rows = counts.flat_map(|count| {
        let before = connected(count);
        let ratios: Vec<Row> = RATIOS.iter().chain([&CGI]).map(|ratio| ratio.row(&before)).collect();
        // As many processes as that mod_fcgid does not start, so visitors wait for each other.
        let within = if count > FCGID_MOST { Target::None } else { Target::AtMost(FCGID_MS) };
        let rate = row(rate(&before, Way::Direct), Target::None, Unit::PerSecond);
        ratios.into_iter().chain([p99_row(&before, within), rate])
    });
    Section {
        title: "By connections",
        about: "The first table with 1 and with 256 connections of wrk instead of 16, a second for each run. Where it \
                needs 512 processes of libfcgi's hello for that it has them; mod_fcgid starts 100 of each program at the \
                most, so at 256 connections its visitors wait in line, for either program. A whole CGI process is timed \
                alone, whatever the connections; what they change stands in the rows of mod_cgid."
            .to_owned(),
        rows: rows.collect(),
    }
}

pub fn people_section() -> Section {
    let rows = PEOPLE.into_iter().flat_map(|people| {
        let before = asked(people);
        let ratios: Vec<Row> = ratios(&by_people(people)).map(|ratio| ratio.row(&before)).collect();
        let rate = row(rate(&before, Way::Direct), Target::None, Unit::PerSecond);
        let within = p99_row(&before, Target::AtMost(FCGID_MS));
        ratios.into_iter().chain([within]).chain(spawn::rows(&before)).chain([rate])
    });
    Section {
        title: "By people",
        about: "The first table while different people are asked for one after the other, all of them cached \
                (`entries = 200000`), with 16 connections, a second for each run. wrk's script that writes the \
                addresses costs all ways the same, the static file and the ceiling too. The people are those of a stand-in \
                for an XMPP server, since no real one looks 100,000 up in a short time, with `probes_per_second = 100000`. \
                All are away, so that one ETag is right for all of them. nginx's cache has the shipped settings but for \
                its size (`keys_zone` 64 MB, `max_size` 2 GB: as shipped it holds some \
                16,000 answers). libfcgi's hello behind nginx and the C program behind mod_cgid do not know who is \
                asked for. ejabberd's module shows people with an account of its server, which has a hundred, so there are \
                no rows of it for more."
            .to_owned(),
        rows: rows.collect(),
    }
}

fn by_people(people: usize) -> Vec<Way> {
    let ejabberd = (people <= crowd::AT_EJABBERD).then_some(Way::Ejabberd);
    BY_PEOPLE.into_iter().chain(ejabberd).collect()
}

/// Those of which both sides are among the ways.
fn ratios(ways: &[Way]) -> impl Iterator<Item = &'static Ratio> + use<> {
    let ways = ways.to_vec();
    RATIOS.iter().filter(move |ratio| ways.contains(&ratio.ours) && ways.contains(&ratio.peer))
}

fn connected(count: usize) -> String {
    match count {
        1 => "1 connection: ".to_owned(),
        _ => format!("{count} connections: "),
    }
}

fn asked(people: usize) -> String {
    let thousands = people / 1000;
    match thousands {
        0 => format!("{people} people: "),
        _ => format!("{thousands},000 people: "),
    }
}

fn rate(before: &str, way: Way) -> String {
    format!("{before}{}", way.name())
}

pub fn measure_connections(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let most = CONNECTIONS.into_iter().max().expect("not empty");
    let field = Field::new(stand, 0, &Server::real(stand), most);
    for count in CONNECTIONS {
        let before = connected(count);
        WAYS.iter().for_each(|way| field.warm(*way, count));
        let rounds = Rounds::run(plan.rounds, &WAYS, |way| field.run(way, count, 1), || ());
        findings.troubles.extend(rounds.troubles());
        RATIOS.iter().chain([&CGI]).for_each(|ratio| rounds.compare(ratio, &before, findings));
        add_figures(&rounds, &before, findings);
    }
}

pub fn measure_people(stand: &Stand, plan: Plan, findings: &mut Findings) {
    let server = Server {
        port: standin::start(),
        xmpp: "server = prosody",
        entries: 200_000,
        limits: UNTHROTTLED,
        room: Room::Large,
    };
    let field = Field::new(stand, 2, &server, 16);
    [Way::Fcgid, Way::FcgidHello].iter().for_each(|way| field.warm(*way, 16));
    for people in PEOPLE {
        let before = asked(people);
        for way in [Way::Direct, Way::Kept, Way::Fcgid] {
            fill(&field, way, plan.people(people));
        }
        let mut visitors = (0..).map(|visitor| visitor * 7919 % plan.people(people));
        let rounds = Rounds::run(
            plan.rounds,
            &by_people(people),
            |way| field.run_people(way, plan.people(people), 16, 1),
            || {
                let numbers: Vec<usize> = visitors.by_ref().take(64).collect();
                let query = |visitor: usize| format!("jid={}", jid(numbers[visitor % numbers.len()]));
                spawn::add(findings, &before, &spawn::round(&field.installed, query));
            },
        );
        findings.troubles.extend(rounds.troubles());
        ratios(&by_people(people)).for_each(|ratio| rounds.compare(ratio, &before, findings));
        add_figures(&rounds, &before, findings);
    }
}

/// Those that are no ratios.
fn add_figures(rounds: &Rounds, before: &str, findings: &mut Findings) {
    findings.add_all(&p99(before), rounds.of(Way::Fcgid).iter().map(|sample| sample.p99_ms));
    let rates = rounds.of(Way::Direct).iter().map(|sample| sample.per_second);
    findings.add_all(&rate(before, Way::Direct), rates);
}

/// Asks until everybody has been asked for.
fn fill(field: &Field, way: Way, people: usize) {
    let mut asked = 0;
    for _ in 0..FILLS {
        if asked >= people {
            return;
        }
        // Those at the end of a run may not have been answered.
        let more = field.fill(way, people, asked, FILL_CONNECTIONS, FILL_SECONDS);
        asked += more.saturating_sub(FILL_CONNECTIONS);
    }
    panic!("{}: {asked} of {people} people asked for in {} s", way.name(), FILLS * FILL_SECONDS);
}
