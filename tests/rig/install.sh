#!/bin/sh
# Installs, with apt, what the demo or the tests need and this machine lacks; says so first, and says nothing where
# nothing is missing. For the tests, unpack.sh beside it gets newer servers too, which are not installed.
#
#     tests/rig/install.sh demo|test|bench
#
# A web server and two XMPP servers that come as packages would be started at once and at every boot. Nobody asked for
# that: while they are installed, Debian's policy-rc.d says no, and those that are new here are not enabled. The demo
# and the tests start their own, on loopback, as they need them. To have one as a service: systemctl enable --now NAME

set -eu

missing=

# need PACKAGE COMMAND...: the package is missing if the command fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has() {
    PATH="/usr/sbin:/usr/bin:/sbin:/bin" command -v "$1"
}

need prosody has prosody
# Prosody's resolver, which can be told not to ask anybody.
need lua-unbound sh -c 'ls /usr/lib/*/lua/5.*/lunbound.so'
need nginx has nginx
need openssl has openssl
need python3-slixmpp /usr/bin/python3 -c 'import slixmpp'
if [ "${1:-}" = test ]; then
    need ejabberd has ejabberdctl
    need apache2 has apache2
    need dnsmasq-base has dnsmasq
    need chromium has chromium
    need libssl-dev test -e /usr/include/openssl/ssl.h
    need pkg-config has pkg-config
    need redis-server has redis-server
    need redis-tools has redis-cli
    # Clocks that differ, and what a process opens.
    need libfaketime sh -c 'ls /usr/lib/*/faketime/libfaketimeMT.so.1'
    need strace has strace
    # One of the languages that sign links in contrib.
    need php-cli has php
    need libapache2-mod-fcgid test -e /usr/lib/apache2/modules/mod_fcgid.so
    sh "$(dirname "$0")/unpack.sh"
fi
if [ "${1:-}" = bench ]; then
    need ejabberd has ejabberdctl
    need ejabberd-mod-webpresence sh -c 'ls /usr/lib/*/ejabberd-*/ebin/mod_webpresence.beam'
    need apache2 has apache2
    need libapache2-mod-fcgid test -e /usr/lib/apache2/modules/mod_fcgid.so
    need wrk has wrk
    need gcc has gcc
    need libc6-dev test -e /usr/include/stdio.h
    need libfcgi-dev test -e /usr/include/fcgi_stdio.h
    need musl-tools has musl-gcc
    # Prosody's module is among the community's.
    sh "$(dirname "$0")/unpack.sh"
fi
[ -n "$missing" ] || exit 0

if ! has apt-get >/dev/null; then
    echo "Missing here, and there is no apt-get to install it:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! has sudo >/dev/null; then
        echo "Missing here; as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "Installing with ${as_root:+sudo }apt-get (no service will be started):$missing"

policy=/usr/sbin/policy-rc.d
made=
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$made" ] || $as_root rm -f "$made"' EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e $policy ]; then
    made=$policy
    printf '#!/bin/sh\n# Services stay as they are while packages are installed; removed right after.\nexit 101\n' |
        $as_root tee $policy >/dev/null
    $as_root chmod 755 $policy
fi

# quietly COMMAND...: what it prints is shown only if it fails.
quietly() {
    "$@" >"$log" 2>&1 </dev/null && return
    cat "$log" >&2
    exit 1
}

quietly $as_root apt-get update -qq
# shellcheck disable=SC2086
quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
if [ -d /run/systemd/system ]; then
    for service in $missing; do
        case $service in
        prosody | nginx | ejabberd | apache2 | redis-server) $as_root systemctl disable --quiet "$service" ;;
        esac
    done
fi
