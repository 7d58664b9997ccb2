#!/usr/bin/python3
"""People on an XMPP server: an independent client (slixmpp) that logs users in and keeps them there.

    users.py HOST PORT CA_FILE

Standard input has one command a line, a JSON object; each is answered by one line, {} or {"error": ...} or what it says below, once the XMPP
server has taken it in. Every user leaves when standard input closes. Without being told otherwise a user accepts whoever
asks to see his presence, and asks for nothing in return.

    {"do": "login", "jid": "a@b/c", "password": "x", "accept": true, "show": "away", "status": {"": "Lunch", "de": "Mittag"}, "priority": 5}
    {"do": "presence", "jid": "a@b/c", "show": "dnd", "status": {}, "priority": 0}
    {"do": "presence", "jid": "a@b/c", "show": "away", "idle": 1700000000}     untouched since then (XEP-0319)
    {"do": "logout", "jid": "a@b/c", "status": {"": "See you"}}
    {"do": "vanish", "jid": "a@b/c"}                         the connection breaks without a word
    {"do": "granted", "jid": "a@b/c", "to": "who@asked"}     waits until the roster says that `to` may see `jid`
    {"do": "revoke", "jid": "a@b/c", "to": "who@asked"}
    {"do": "add", "jid": "a@b/c", "to": "who@x"}             adds a contact: asks to see him
    {"do": "remove", "jid": "a@b/c", "to": "who@x"}          removes a contact, and all that was agreed with him
    {"do": "block", "jid": "a@b/c", "to": "who@x"}           XEP-0191
    {"do": "say", "jid": "a@b/c", "to": "who@x", "text": "off"}     says it, waits for the answer: {"heard": "..."}
    {"do": "publish", "jid": "a@b/c", "type": "image/png", "data": "BASE64", "how": "pep" | "vcard"}     his picture (XEP-0084, XEP-0153)
    {"do": "join", "jid": "a@b/c", "room": "room@rooms.b"}
    {"do": "component", "jid": "other.b", "password": "x", "port": 5347}
"""

import asyncio
import base64
import json
import logging
import sys
from datetime import datetime, timezone

# It would say on import that a faster string preparation could be installed; nobody here needs it.
logging.getLogger("slixmpp.stringprep").setLevel(logging.ERROR)

import slixmpp
from slixmpp.xmlstream import XMLStream

WAIT_SECONDS = 20


class Person(slixmpp.ClientXMPP):
    """One login of one user."""

    def __init__(self, command, ca_file):
        super().__init__(command["jid"], command["password"])
        self.ca_certs = ca_file
        self.dns_service = None
        self.auto_authorize = True if command.get("accept", True) else None
        self.auto_subscribe = False
        self.register_plugin("xep_0045")
        self.register_plugin("xep_0084")
        self.register_plugin("xep_0153")
        self.register_plugin("xep_0191")
        self.register_plugin("xep_0199")
        self.register_plugin("xep_0319")
        self.heard = asyncio.Queue()
        self.add_event_handler("message", lambda message: message["body"] and self.heard.put_nowait(message))

    async def settled(self):
        """The server has handled everything sent so far: it works through a client's stanzas in order."""
        await self.plugin["xep_0199"].send_ping(self.boundjid.host, timeout=WAIT_SECONDS)

    def announce(self, command, kind=None):
        presence = self.make_presence(pshow=command.get("show"), ppriority=command.get("priority"), ptype=kind)
        for language, text in (command.get("status") or {}).items():
            presence["status|" + language if language else "status"] = text
        if command.get("idle"):
            presence["idle"]["since"] = datetime.fromtimestamp(command["idle"], timezone.utc)
        presence.send()


async def started(stream, host, port, good, bad):
    """Connects; returns at the event `good`, raises at one of `bad`."""
    done = asyncio.get_running_loop().create_future()
    stream.add_event_handler(good, lambda _: done.done() or done.set_result(None))
    for name in bad:
        stream.add_event_handler(
            name, lambda event, name=name: done.done() or done.set_exception(RuntimeError(f"{name}: {event}")))
    XMLStream.connect(stream, host, port)
    await asyncio.wait_for(done, WAIT_SECONDS)


class Desk:
    """Takes the commands."""

    def __init__(self, host, port, ca_file):
        self.host, self.port, self.ca_file = host, port, ca_file
        self.streams = {}

    async def login(self, command):
        person = Person(command, self.ca_file)
        await started(person, self.host, self.port, "session_start",
                      ["failed_all_auth", "connection_failed", "stream_error", "disconnected"])
        await person.get_roster()
        self.streams[command["jid"]] = person
        await self.presence(command)

    async def presence(self, command):
        person = self.streams[command["jid"]]
        person.announce(command)
        await person.settled()

    async def logout(self, command):
        person = self.streams.pop(command["jid"])
        person.announce(command, "unavailable")
        await person.settled()
        await person.disconnect()

    async def vanish(self, command):
        self.streams.pop(command["jid"]).abort()

    async def granted(self, command):
        person = self.streams[command["jid"]]
        changed = asyncio.Event()
        person.add_event_handler("roster_update", lambda _: changed.set())
        while not person.client_roster[command["to"]]["from"]:
            await asyncio.wait_for(changed.wait(), WAIT_SECONDS)
            changed.clear()
        await person.settled()

    async def approve(self, command):
        person = self.streams[command["jid"]]
        person.send_presence(pto=command["to"], ptype="subscribed")
        await self.granted(command)

    async def revoke(self, command):
        person = self.streams[command["jid"]]
        person.send_presence(pto=command["to"], ptype="unsubscribed")
        await person.settled()

    async def add(self, command):
        person = self.streams[command["jid"]]
        person.update_roster(command["to"], name="Web")
        person.send_presence(pto=command["to"], ptype="subscribe")
        await person.settled()

    async def remove(self, command):
        person = self.streams[command["jid"]]
        await person.del_roster_item(command["to"])
        await person.settled()

    async def block(self, command):
        person = self.streams[command["jid"]]
        await person.plugin["xep_0191"].block(command["to"], timeout=WAIT_SECONDS)
        await person.settled()

    async def say(self, command):
        person = self.streams[command["jid"]]
        person.send_message(mto=command["to"], mbody=command["text"], mtype="chat")
        while True:
            message = await asyncio.wait_for(person.heard.get(), WAIT_SECONDS)
            if message["from"].bare == command["to"]:
                return {"heard": message["body"]}

    async def publish(self, command):
        person = self.streams[command["jid"]]
        data = base64.b64decode(command["data"])
        if command["how"] == "vcard":
            await person.plugin["xep_0153"].set_avatar(avatar=data, mtype=command["type"], timeout=WAIT_SECONDS)
        else:
            avatar = person.plugin["xep_0084"]
            await avatar.publish_avatar(data, timeout=WAIT_SECONDS)
            info = {"id": avatar.generate_id(data), "type": command["type"], "bytes": str(len(data))}
            await avatar.publish_avatar_metadata([info], timeout=WAIT_SECONDS)
        await person.settled()

    async def join(self, command):
        person = self.streams[command["jid"]]
        await person.plugin["xep_0045"].join_muc_wait(command["room"], person.boundjid.user, timeout=WAIT_SECONDS)
        await person.plugin["xep_0045"].set_room_config(command["room"], slixmpp.plugins.xep_0004.Form())

    async def component(self, command):
        other = slixmpp.ComponentXMPP(command["jid"], command["password"], self.host, command["port"])
        other.register_plugin("xep_0030")
        other.register_plugin("xep_0199")
        await started(other, self.host, command["port"], "session_start", ["connection_failed", "disconnected"])
        self.streams[command["jid"]] = other

    async def leave(self):
        await asyncio.gather(*(stream.disconnect(wait=1.0) for stream in self.streams.values()))


async def main(host, port, ca_file):
    loop = asyncio.get_running_loop()
    desk = Desk(host, int(port), ca_file)
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = json.loads(line)
        try:
            answer = await getattr(desk, command["do"])(command) or {}
        except Exception as error:
            answer = {"error": f"{command}: {error!r}"}
        print(json.dumps(answer), flush=True)
    await desk.leave()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="users: %(message)s")
    asyncio.run(main(*sys.argv[1:]))
