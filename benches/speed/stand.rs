//! What everything is measured between: Prosody with its own module for the web and thousands of people, ejabberd
//! with its own and a hundred, alice away on both; and installations of the executable, each an identity of its own that
//! all of them have agreed to be seen by.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::crowd;
use crate::rig::leash::{Leash, directory};
use crate::rig::users::{Shown, Users};
use crate::rig::webpresence::Webpresence;
use crate::rig::xmpp::{DOMAIN, Identity, Release, Xmpp};
use crate::rig::{ejabberd, eventually, port, prosody, repository};

/// One that is away on both servers.
pub const ALICE: &str = "alice";
const MODEL: &str = "model";
const AWAY: Shown = Shown { show: "away", texts: &[], priority: 0 };
const PIXMAPS: &str = "/usr/share/ejabberd-mod-webpresence/pixmaps";
/// Those who have different installations: a server lets a component be connected once.
const IDENTITIES: usize = 14;
/// Those whom people on ejabberd have agreed to be seen by.
pub const AT_EJABBERD: [usize; 2] = [12, 13];
/// Takes the brake off for those who fill caches: two hundred probes a second spare a real server and would make the wait
/// for a hundred thousand people eight minutes.
pub const UNTHROTTLED: &str = "[limits]\nprobes_per_second = 100000\n";
/// People who do something while somebody looks, for each of two deeds.
pub const CHANGING: usize = 9;

pub struct Stand {
    pub prosody: Xmpp,
    /// The ports of the modules.
    pub prosody_http: u16,
    pub ejabberd_http: u16,
    pub users: Users,
    pub ejabberd: Xmpp,
    _ejabberd_users: Users,
    _module: TempDir,
}

impl Stand {
    pub fn start() -> Stand {
        let (ejabberd, _ejabberd_users) = start_ejabberd();
        let module = module();
        let http = Cell::new(0);
        let prosody = prosody::start_edited(Release::Stable, prosody::LastActivity::Off, &[], &|config| {
            let [port] = port::free();
            http.set(port);
            with_module(&config, module.path(), port)
        });
        let users = Users::of(&prosody);
        let people: Vec<String> = [MODEL, ALICE].map(str::to_owned).into_iter().chain(changing()).collect();
        for person in &people {
            prosody.register(person);
            users.login(&format!("{person}/home"), AWAY);
        }
        for number in 0..IDENTITIES {
            consent(&prosody, &users, &people, Identity::Component(number));
        }
        users.logout(&format!("{MODEL}/home"), &[]);
        crowd::multiply(&prosody, MODEL);
        let ejabberd_http = ejabberd::api(&ejabberd);
        Stand { prosody, prosody_http: http.get(), ejabberd_http, users, ejabberd, _ejabberd_users, _module: module }
    }

    /// With lines for `[xmpp]` and `[cache]`, and sections behind these, and the way to the server through `port`. Nobody
    /// counts as a stranger: all visitors of the bench are one, and he asks for more people than anybody is let.
    pub fn install(&self, number: usize, xmpp: &str, cache: &str, port: u16) -> Webpresence {
        let installed = Webpresence::tuned(&self.prosody, Identity::Component(number), xmpp, cache);
        let access = "visibility = anyone\nunknown_per_minute = 0\nunknown_per_minute_all = 0\n";
        let direct = format!("\nport = {}\n", self.prosody.ports.component);
        let config = installed.configuration().replace("visibility = anyone\n", access);
        installed.configure(&config.replace(&direct, &format!("\nport = {port}\n")));
        installed
    }

    pub fn component_port(&self) -> u16 {
        self.prosody.ports.component
    }
}

pub fn changing() -> impl Iterator<Item = String> {
    (0..2 * CHANGING).map(|number| format!("changing{number}"))
}

/// One more process of an installation, on a socket of its own that a web server may use.
pub fn serve_on(installed: &Webpresence, socket: &Path) -> Leash {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webpresence"));
    command.arg("serve").arg("--config").arg(&installed.config);
    command.arg("--listen").arg(format!("unix:{},mode=0666", socket.display()));
    let leash = Leash::start(directory("serve"), None, &mut command, &[]);
    eventually("webpresence serve accepts", || UnixStream::connect(socket).ok());
    leash
}

/// Stable's module for Debian's Prosody, where the user it runs as may read it.
fn module() -> TempDir {
    let dir = directory("module");
    let original = repository("target/servers/prosody-stable/usr/lib/prosody/modules/mod_webpresence");
    let copied = Command::new("cp").arg("-rL").arg(&original).arg(dir.path()).status();
    assert!(copied.is_ok_and(|status| status.success()), "get it with: sh tests/rig/install.sh bench");
    dir
}

fn with_module(config: &str, plugins: &Path, port: u16) -> String {
    let http =
        format!("http_ports = {{ {port} }}\nhttp_interfaces = {{ \"127.0.0.1\" }}\nhttp_default_host = \"{DOMAIN}\"\n");
    let changes = [
        ("plugin_paths = {", format!("plugin_paths = {{ \"{}\";", plugins.display())),
        ("min = \"debug\"", "min = \"error\"".to_owned()),
        ("http_ports = { }", http),
        ("\nmodules_enabled = {", "\nmodules_enabled = { \"webpresence\";".to_owned()),
    ];
    changed(config, &changes)
}

fn start_ejabberd() -> (Xmpp, Users) {
    let server = ejabberd::start_edited(Release::Stable, &[], &|config| {
        let module = format!("  mod_webpresence:\n    access: local\n    pixmaps_path: \"{PIXMAPS}\"\n");
        let changes = [
            ("      /api: mod_http_api\n", "      /api: mod_http_api\n      /presence: mod_webpresence\n".to_owned()),
            ("access_rules:\n", "access_rules:\n  webpresence_auto:\n    allow: local\n".to_owned()),
            ("loglevel: info", "loglevel: error".to_owned()),
            ("modules:\n  mod_adhoc", format!("modules:\n{module}  mod_adhoc")),
        ];
        changed(&config, &changes)
    });
    let users = Users::of(&server);
    server.register(ALICE);
    users.login(&format!("{ALICE}/home"), AWAY);
    for name in (0..crowd::AT_EJABBERD).map(crowd::name) {
        server.register(&name);
        AT_EJABBERD.iter().for_each(|number| agree(&server, &name, Identity::Component(*number)));
    }
    (server, users)
}

/// As the README tells the admin to give consent for a user.
fn agree(ejabberd: &Xmpp, user: &str, identity: Identity) {
    let jid = identity.jid();
    let item = format!(r#""localuser":"{user}","localhost":"{DOMAIN}","user":"","host":"{jid}""#);
    ejabberd::call(ejabberd, "add_rosteritem", &format!(r#"{{{item},"nick":"Web","group":"Web","subs":"from"}}"#));
}

fn changed(config: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(config.to_owned(), |config, (from, to)| {
        assert_eq!(config.matches(from).count(), 1, "{from} in the server's configuration");
        config.replace(from, to)
    })
}

fn consent(server: &Xmpp, users: &Users, people: &[String], identity: Identity) {
    let installed = Webpresence::new(server, identity);
    let jids: Vec<String> = people.iter().map(|person| format!("{person}@{DOMAIN}")).collect();
    let arguments: Vec<&str> = ["subscribe"].into_iter().chain(jids.iter().map(String::as_str)).collect();
    let output = installed.run(&arguments);
    assert!(output.status.success(), "subscribe: {output:?}");
    for person in people {
        users.granted(&format!("{person}/home"), &identity.jid());
    }
}

/// A directory for sockets of our own that web servers can get to.
pub fn sockets() -> TempDir {
    let dir = directory("sockets");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("it is ours");
    dir
}
