#!/bin/sh
# Unpacks the newer Prosody and ejabberd that the tests run beside the installed ones, from Debian's backports, the
# community's modules for both Prosodys, and jabberd2. Everything goes below target/servers; nothing is installed, and neither apt's
# sources nor its lists are touched. Says so first, and says nothing where everything is there. Needs no root.
#
#     tests/rig/unpack.sh

set -eu

release=bookworm
# What else they need is installed with those of the release.
ejabberd="ejabberd erlang-jose erlang-p1-acme erlang-p1-cache-tab erlang-p1-eimp erlang-p1-mqtree
    erlang-p1-pkix erlang-p1-stringprep erlang-p1-stun erlang-p1-tls erlang-p1-utils erlang-p1-xml erlang-p1-xmpp
    erlang-p1-yaml erlang-p1-yconf erlang-p1-zlib"
# With the libraries that not every machine has.
jabberd2="jabberd2 libexpat1 libgsasl18 libgssglue1 libhttp-parser2.9 libidn12 libntlm0 libsqlite3-0"

servers=$(dirname "$0")/../../target/servers
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)
complete=yes
for folder in prosody-newer ejabberd-newer prosody-stable jabberd2; do
    [ -d "$servers/$folder" ] || complete=
done
[ -z "$complete" ] || exit 0

# fail REASON...: the tests cannot run without the servers.
fail() {
    echo "The newer Prosody and ejabberd of the tests, and jabberd2, cannot be unpacked: $*" >&2
    exit 1
}

PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
command -v apt-get >/dev/null || fail "there is no apt-get here"
command -v dpkg >/dev/null || fail "there is no dpkg here"

# Where this machine's apt has the release from, whichever form its sources are written in; others than Debian use its
# names too.
mirrors=$(apt-get update --print-uris 2>/dev/null | sed -n "s|^'\(.*\)/dists/$release/.*|\1|p" | uniq)
[ -n "$mirrors" ] || fail "apt has no source for Debian $release here"
echo "Unpacking the newer Prosody and ejabberd, and jabberd2, for the tests (nothing will be installed)"

work=$(mktemp -d "$servers/unpacking.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$work/parts" "$work/lists/partial" "$work/cache/archives/partial"

# apt ARGUMENTS...: apt-get with directories of its own, and without the user it downloads as, who may not write here.
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" \
        -o APT::Update::Error-Mode=any "$@" >"$work/log" 2>&1 </dev/null
}

# trusts MIRROR: it has the release and its backports, signed by Debian.
trusts() {
    for suite in "$release" "$release-backports"; do
        echo "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $1 $suite main"
    done >"$work/sources.list"
    apt update
}

found=
for mirror in $mirrors; do
    if trusts "$mirror"; then
        found=yes
        break
    fi
done
if [ -z "$found" ]; then
    cat "$work/log" >&2
    fail "apt's sources here do not have $release-backports"
fi

# unpack FOLDER SUITE PACKAGE...: the folder appears when it is complete.
unpack() {
    folder=$1
    suite=$2
    shift 2
    [ ! -d "$servers/$folder" ] || return 0
    mkdir "$work/$folder" "$work/$folder.debs"
    cd "$work/$folder.debs"
    # shellcheck disable=SC2046
    if ! apt download $(printf "%s/$suite " "$@"); then
        cat "$work/log" >&2
        fail "they cannot be downloaded"
    fi
    for package in *.deb; do
        dpkg -x "$package" "$work/$folder"
    done
    chmod 755 "$work/$folder"
    mv "$work/$folder" "$servers/$folder"
}

unpack prosody-newer "$release-backports" prosody prosody-modules
# shellcheck disable=SC2086
unpack ejabberd-newer "$release-backports" $ejabberd
unpack prosody-stable "$release" prosody-modules
# shellcheck disable=SC2086
unpack jabberd2 "$release" $jabberd2
