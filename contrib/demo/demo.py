#!/usr/bin/python3
"""Shows webpresence at work: a real Prosody with three users whom an independent client keeps online, `webpresence
serve`, and nginx with the shipped snippet, all on loopback and in one temporary folder.

    demo.py            prints the addresses and waits; Ctrl-C ends everything and removes the folder
    demo.py --check    fetches every address, prints what comes back, fails if anything is wrong, and ends

`make demo` installs and builds what this needs. Each server is held by tests/rig/leash.py, which ends it when this
script ends, in whatever way.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RIG = ROOT / "tests" / "rig"
EXECUTABLE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "webpresence"
PYTHON = "/usr/bin/python3"
DOMAIN, COMPONENT, SECRET = "example.test", "presence.example.test", "only-for-the-demo"
PATIENCE_SECONDS = 30

USERS = {
    "alice": {"show": "", "status": {}},
    "bob": {"show": "away", "status": {"": "Lunch, back at two"}},
    "carol": {"show": "", "status": {}},
}
FAREWELL = {"": "See you tomorrow"}

# Who, his state, and the bodies of text, XML and JSON that are expected.
FORBIDDEN_XML = ('<presence type="error" from="{jid}"><error code="403" type="auth">'
                 '<forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></presence>')
EXPECTED = [
    ("alice", "available", "Available", '<presence from="{jid}"/>',
     {"status": None, "priority": 0, "label": "Available"}),
    ("bob", "away", "Lunch, back at two",
     '<presence from="{jid}"><show>away</show><status>Lunch, back at two</status></presence>',
     {"status": "Lunch, back at two", "priority": 0, "label": "Away"}),
    ("carol", "offline", "See you tomorrow",
     '<presence type="unavailable" from="{jid}"><status>See you tomorrow</status></presence>',
     {"status": "See you tomorrow", "priority": None, "label": "Unavailable"}),
    ("nobody", "forbidden", "Forbidden", FORBIDDEN_XML, {"status": None, "priority": None, "label": "Forbidden"}),
]


class Demo:
    """Everything that runs, in one folder; leaving ends it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="webpresence-demo-"))
        self.folder.chmod(0o755)
        self.state = None
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.processes):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        for folder in filter(None, (self.folder, self.state)):
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, name):
        return self.folder / name

    def start(self, name, command, user=None):
        """Starts a server on a leash; what it prints goes into the folder."""
        (self.path(name)).mkdir(exist_ok=True)
        leash = [PYTHON, RIG / "leash.py", "--dir", self.path(name)] + (["--as", user] if user else [])
        with open(self.path(f"{name}.log"), "ab") as log:
            process = subprocess.Popen(leash + command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                                       start_new_session=True)
        self.processes.append(process)
        return process

    def ready(self, name, process, is_ready):
        """Waits until the server answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = [self.path(f"{name}.log"), *self.path(name).glob("*.log")]
                raise SystemExit(f"{name} does not start:\n" + "\n".join(tail(log) for log in logs))
            time.sleep(0.02)

    def prosody(self):
        """An XMPP server with three users, and a component that may ask."""
        folder = self.path("prosody")
        (folder / "data").mkdir(parents=True)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
            key, "-out", certificate, "-days", "3", "-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}")
        self.xmpp_port, self.component_port, *others = free_ports(4)
        words = {"DIR": folder, "DOMAIN": DOMAIN, "C2S": self.xmpp_port, "C2STLS": others[0], "S2S": others[1],
                 "COMPONENT": self.component_port, "CERT": certificate, "KEY": key, "MODULES": '"lastactivity";',
                 "PLUGINS": "", "PRIVILEGES": "",
                 "COMPONENTS": f'Component "{COMPONENT}"\n\tcomponent_secret = "{SECRET}"\n'}
        config = folder / "prosody.cfg.lua"
        config.write_text(fill((RIG / "prosody.cfg.lua").read_text(), words))
        process = self.start("prosody", [program("prosody"), "-F", "--config", config], user="prosody")
        self.ready("prosody", process, lambda: listens(self.xmpp_port) and listens(self.component_port))
        for user in USERS:
            run(program("prosodyctl"), "--config", config, "register", user, DOMAIN, SECRET)
        self.users = subprocess.Popen(
            [PYTHON, RIG / "users.py", "127.0.0.1", str(self.xmpp_port), certificate], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)
        self.processes.append(self.users)

    def webpresence(self):
        """The identity's configuration, the users' consent, and the FastCGI server."""
        config = self.path("webpresence.ini")
        config.touch(mode=0o600)
        config.write_text(f"""[xmpp]
jid = {COMPONENT}
password = {SECRET}
host = 127.0.0.1
port = {self.component_port}

[access]
; Everybody may see those users who have agreed to be shown.
visibility = anyone

{self.cache()}""")
        for user, shown in USERS.items():
            self.tell("login", user, password=SECRET, **shown)
        run(EXECUTABLE, "subscribe", "--config", config, *(f"{user}@{DOMAIN}" for user in USERS))
        for user in USERS:
            self.tell("granted", user, to=COMPONENT)
        self.tell("logout", "carol", status=FAREWELL)
        sock = self.path("webpresence.sock")
        process = self.start("serve", [EXECUTABLE, "serve", "--config", config, "--listen", f"unix:{sock},mode=0666"])
        self.ready("serve", process, lambda: listens(str(sock)))

    def cache(self):
        """A place for what processes share, which may not lie among temporary files; without one, memory has to do."""
        for place in (EXECUTABLE.parent.parent, Path.home()):
            if not any(place.is_relative_to(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm")):
                self.state = tempfile.mkdtemp(prefix="webpresence-demo-", dir=place)
                return f"[cache]\ndirectory = {self.state}\n"
        return ""

    def tell(self, what, user, **more):
        """One command to the independent client."""
        self.users.stdin.write(json.dumps({"do": what, "jid": f"{user}@{DOMAIN}/demo", **more}) + "\n")
        answer = json.loads(self.users.stdout.readline() or '{"error": "it has ended"}')
        if answer:
            raise SystemExit(f"users.py: {answer['error']}")

    def nginx(self):
        """The web server, with the files that are shipped and two places in them changed."""
        folder, www = self.path("nginx"), self.path("www")
        (www / "pictures").mkdir(parents=True)
        folder.mkdir()
        for picture in (ROOT / "images" / "default").glob("*-32.gif"):
            shutil.copy(picture, www / "pictures" / picture.name.replace("-32", ""))
        shutil.copy(ROOT / "nginx" / "webpresence.conf", folder)
        snippet = (ROOT / "nginx" / "webpresence-http.conf").read_text()
        snippet = snippet.replace("unix:/run/webpresence/webpresence.sock", f"unix:{self.path('webpresence.sock')}")
        snippet = snippet.replace("/var/cache/nginx-webpresence", str(folder / "cache"))
        (folder / "webpresence-http.conf").write_text(snippet)
        shutil.copy("/etc/nginx/fastcgi_params", folder)
        [port] = free_ports(1)
        words = {"DIR": folder, "WWW": www, "PORT": port, "USER": "user www-data;" if os.geteuid() == 0 else ""}
        (folder / "nginx.conf").write_text(fill((HERE / "nginx.conf").read_text(), words))
        self.site = f"http://127.0.0.1:{port}"
        (www / "index.html").write_text(page())
        process = self.start("nginx", [program("nginx"), "-p", folder, "-e", folder / "error.log", "-c",
                                       folder / "nginx.conf"])
        self.ready("nginx", process, lambda: listens(port))


def page():
    """The page of the demo: a row for each person."""
    rows = "".join(row(user) for user, *_ in EXPECTED)
    return (HERE / "page.html").read_text().replace("@ROWS@", rows)


def row(user):
    picture, text, xml, data, redirect = (address.replace("&", "&amp;") for address in addresses(user))
    name = f"{user}@{DOMAIN}"
    return f"""
<tr><th scope="row">{name}</th>
<td><a href="{picture}"><img src="{picture}" alt="{name}"></a></td>
<td><a href="{redirect}"><img src="{redirect}" alt="{name}"></a></td>
<td><a href="{text}" class="body">text</a></td>
<td><a href="{xml}" class="body">xml</a></td>
<td><a href="{data}" class="body">json</a></td></tr>"""


def addresses(user):
    """Picture, text, XML, JSON and redirect, at Openfire's path and at the short one."""
    jid = f"{user}@{DOMAIN}"
    return [f"/plugins/presence/status?jid={jid}"] + [f"/presence/?jid={jid}&type={kind}" for kind in
                                                      ("text", "xml", "json")] + [
        f"/plugins/presence/status?jid={jid}&images=/pictures/--IMAGE--.gif"]


def check(site):
    """Fetches every address and compares whole answers."""
    wrong = 0
    for user, state, text, xml, data in EXPECTED:
        jid = f"{user}@{DOMAIN}"
        data = {"jid": jid, "show": state, **data, "since": None}
        picture = (ROOT / "images" / "default" / f"{state}-16.png").read_bytes()
        answers = [
            (200, "image/png", None, picture),
            (200, "text/plain; charset=utf-8", None, text.encode() + b"\n"),
            (200, "text/xml; charset=utf-8", None, xml.replace("{jid}", jid).encode() + b"\n"),
            (403 if state == "forbidden" else 200, "application/json", None,
             json.dumps(data, separators=(",", ":")).encode() + b"\n"),
            (302, None, f"/pictures/{state}.gif", None),
        ]
        wrong += sum(not compare(site, path, *answer) for path, answer in zip(addresses(user), answers))
    wrong += not compare(site, "/", 200, "text/html", None, page().encode())
    print(f"\n{wrong} of the answers are wrong" if wrong else "\nEverything is as it should be.")
    return 1 if wrong else 0


def compare(site, path, status, content_type, location, body):
    found = fetch(site + path)
    print(f"\n{site}{path}\n  {found[0]} {found[1] or ''} {found[2] or ''}")
    print("  " + shown(found[3]))
    good = found[0] == status and found[2] == location and (body is None or found[3] == body)
    good = good and (content_type is None or found[1] == content_type)
    if not good:
        print(f"  WRONG, expected: {status} {content_type or ''} {location or ''}\n  {shown(body or b'')}")
    return good


def shown(body):
    try:
        return body.decode().strip()[:200]
    except UnicodeDecodeError:
        return f"({len(body)} bytes)"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def fetch(url):
    """Status, content type, location, body; nothing is followed, and no proxy is asked."""
    opener = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(url, timeout=PATIENCE_SECONDS)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers["Content-Type"], answer.headers["Location"], answer.read()


def program(name):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise SystemExit(f"{name} is missing; run: make demo")
    return found


def run(*command):
    """A command that has to succeed; what it says is shown only if it does not."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=PATIENCE_SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout}")


def fill(template, words):
    for name, value in words.items():
        template = template.replace(f"@{name}@", str(value))
    return template


def free_ports(count):
    """Ports nobody listens on, from below those the kernel gives to outgoing connections."""
    found = []
    for port in random.sample(range(20000, 32000), 12000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("no free port")


def listens(address):
    """Does somebody accept at this port, or at this path?"""
    family, address = (socket.AF_UNIX, address) if isinstance(address, str) else (socket.AF_INET, ("127.0.0.1", address))
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def tail(path):
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join([f"--- {path}"] + lines[-30:])


def end(*_):
    raise KeyboardInterrupt


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with Demo() as demo:
            demo.prosody()
            demo.webpresence()
            demo.nginx()
            if "--check" in sys.argv[1:]:
                return check(demo.site)
            print(f"\nOpen this page:\n\n    {demo.site}/\n\nor fetch any of these, for instance with  curl -i 'ADDRESS'\n")
            for user, *_ in EXPECTED:
                print("\n".join(f"    {demo.site}{path}" for path in addresses(user)) + "\n")
            print("Ctrl-C ends it.", flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        print("\nEnded; nothing is left behind.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
