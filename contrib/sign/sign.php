<?php
const NAMES = ['jid', 'req_jid', 'type', 'images', 'available', 'chat', 'away', 'xa', 'dnd', 'offline', 'forbidden', 'unknown'];

/** The parameters of a signed link. $key: rtrim of sign_key_file; $site: jid of [xmpp]; $link: jid, req_jid and what else
    it has. Addresses are in lower case. */
function sign(string $key, string $site, int $days, array $link): string {
    $exp = (string) (time() + $days * 86400);
    $bound = array_map(fn ($name) => $link[$name] ?? ($name === 'type' ? 'image' : null), NAMES);
    $field = fn ($text) => $text === null ? "\xff\xff\xff\xff" : pack('N', strlen($text)) . $text;
    $fields = implode(array_map($field, ['webpresence-link-1', $site, $exp, ...$bound]));
    $sig = rtrim(strtr(base64_encode(hash_hmac('sha256', $fields, $key, true)), '+/', '-_'), '=');
    $kid = substr(hash('sha256', 'webpresence-kid-1' . $key), 0, 8);
    return http_build_query($link + ['exp' => $exp, 'kid' => $kid, 'sig' => $sig]);
}
