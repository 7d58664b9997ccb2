-- A Prosody on loopback with one domain, its rooms, and components that other programs may be.
-- Words between at signs are filled in by whoever starts it.

plugin_paths = { @PLUGINS@ }
data_path = "@DIR@/data"
pidfile = "@DIR@/prosody.pid"
log = { { levels = { min = "debug" }, to = "file", filename = "@DIR@/prosody.log" } }

interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { @C2S@ }
c2s_direct_tls_ports = { @C2STLS@ }
component_ports = { @COMPONENT@ }
s2s_ports = { @S2S@ }
s2s_direct_tls_ports = { }
http_ports = { }
https_ports = { }

-- No name outside this machine exists, and no resolver is asked.
unbound = { resolvconf = false, hoststxt = false, forward = { "127.0.0.1@1" } }

modules_enabled = {
	"disco"; "roster"; "saslauth"; "tls"; "blocklist"; "carbons"; "pep"; "private"; "smacks"; "vcard4"; "vcard_legacy";
	"limits"; "ping"; "register"; "time"; "uptime"; "version"; "posix"; "dialback";
	@MODULES@
}
-- What Debian sets.
limits = { c2s = { rate = "10kb/s" }, s2sin = { rate = "30kb/s" } }
authentication = "internal_hashed"
c2s_require_encryption = true
s2s_secure_auth = true
ssl = { certificate = "@CERT@", key = "@KEY@" }

privileged_entities = { @PRIVILEGES@ }

VirtualHost "@DOMAIN@"

@COMPONENTS@
