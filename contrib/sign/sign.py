import base64, hashlib, hmac, struct, time, urllib.parse

NAMES = "jid req_jid type images available chat away xa dnd offline forbidden unknown".split()


def sign(key, site, days, **link):
    """The parameters of a signed link. key: the bytes of sign_key_file without its line end; site: jid of [xmpp]; link:
    jid, req_jid and what else it has. Addresses are in lower case."""
    exp = str(int(time.time()) + days * 86400)
    texts = ["webpresence-link-1", site, exp] + [{"type": "image", **link}.get(name) for name in NAMES]
    fields = [b"\xff" * 4 if text is None else struct.pack(">I", len(text.encode())) + text.encode() for text in texts]
    sig = base64.urlsafe_b64encode(hmac.digest(key, b"".join(fields), "sha256")).decode().rstrip("=")
    kid = hashlib.sha256(b"webpresence-kid-1" + key).hexdigest()[:8]
    return urllib.parse.urlencode({**link, "exp": exp, "kid": kid, "sig": sig})
